"""A graph of one node that asks the model, for LangGraph's own server."""

import os
from typing import Any

from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

model = ChatOpenAI(
    model="stand-in", base_url=os.environ["MODEL_URL"], api_key="none", max_retries=0
)


async def answer(state: MessagesState) -> dict[str, Any]:
    """What the model says."""
    return {"messages": [await model.ainvoke(state["messages"])]}


builder = StateGraph(MessagesState)
builder.add_node("answer", answer)
builder.add_edge(START, "answer")
builder.add_edge("answer", END)
graph = builder.compile()
