import { mount } from "svelte";
import Page from "./layout/Page.svelte";
import "./theme.svelte.ts";

mount(Page, { target: document.getElementById("page")! });
