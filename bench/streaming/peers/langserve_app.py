"""LangServe as its documentation shows it: a prompt and a model, with all its routes."""

import os

from fastapi import FastAPI
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from langserve import add_routes

from bench.streaming.model import NAME

app = FastAPI()
model = ChatOpenAI(
    model=NAME, base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0, streaming=True
)
add_routes(app, ChatPromptTemplate.from_messages([("human", "{question}")]) | model, path="/chat")
