"""What the client says of refusals, whom it sends as, and how it uploads: with the service."""

import socket
import time

import httpx
import jwt
import pytest
from conftest import Service, ServiceFactory
from javascript import Run, in_browser
from playwright.sync_api import Browser
from standins.openai import Answer, OpenAIStandIn

pytestmark = pytest.mark.slow

_SECRET = "a secret of more than thirty-two bytes"
NO_CREDENTIALS = (
    "This service needs credentials. Send a key as X-API-Key, or a token as Authorization: Bearer."
)
NO_TYPE = (
    "doc_type: There is no document type 'PROJECT_MANIFEST'. The nearest known types are "
    "PROJECT_MANIFESTO, PROJECT_STRUCTURE_MAP, DEPLOYMENT_INFRASTRUCTURE."
)
NOBODY = "00000000-0000-0000-0000-000000000000"

CATCH = """
const caught = async (doing) => {
  try {
    return await doing();
  } catch (error) {
    return [error.status, error.code, error.message];
  }
};
"""


def test_the_refusals_of_the_service_can_be_read(
    run_script: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["It"], end="hang"), Answer(status=401))
    refusals, going_on, failed = run_script(
        CATCH
        + """
        const { address, project, nobody } = given;
        const api = client.createClient({ address });
        const read = async (stream) => { for await (const _ of stream); };
        const draft = { project_id: project, conversation_id: client.newId(), message: "?" };
        const refusals = [
          await caught(() => api.projects.get(nobody)),
          await caught(() => api.projects.create({ name: "" })),
          await caught(() => api.drafting.ingest(project, "", "x")),
          await caught(() => api.drafting.ingest(project, "a", " ")),
          await caught(() => api.texts().put("prompts/answer.md", "x", "other")),
          await caught(() => read(api.followRun(nobody))),
          await caught(() => read(api.draftStream({ ...draft, doc_type: "PROJECT_MANIFEST" }))),
        ];
        let meta;
        for await (const event of api.chatStream(project, "What?")) {
          if (event.type === "meta") meta = event;
          if (event.type === "text") break;
        }
        const again = api.chatStream(project, "And?", meta.data.conversationId);
        const error = await read(again).catch((thrown) => thrown);
        await api.stop(error.runId);
        let failed;
        for await (const event of api.draftStream(draft)) failed = client.failure(event);
        const goingOn = [error.status, error.code, error.runId === meta.runId];
        return [refusals, goingOn, [failed.code, client.readable(failed)]];
        """,
        service.url,
        project=project,
        nobody=NOBODY,
    )  # fmt: skip
    version = http.get("/api/v1/texts/prompts/answer.md").json()["text"]["version"]
    assert refusals == [
        [404, "not_found", "There is no such project."],
        [400, "bad_request", "name: must not be blank."],
        [422, "invalid", "doc_name: String should have at least 1 character."],
        [400, "bad_request", "markdown_content must not be blank."],
        [
            412,
            "changed",
            f"The text has changed: its version is {version} now. Read it, and edit that.",
        ],
        [404, "not_found", "There is no such run."],
        [422, "invalid", NO_TYPE],
    ]
    assert going_on == [409, "run_in_progress", True]
    assert failed == ["STREAM_ERROR", "401 Authentication Failed. Check the provider's API key."]


def test_credentials_are_read_anew_for_each_request(
    run_script: Run, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    def token(seconds: float) -> str:
        return jwt.encode({"sub": "ada", "exp": time.time() + seconds}, _SECRET, "HS256")

    with start_service(
        api_key="canary-service-key",
        jwt_secret=_SECRET,
        openai_base_url=model.base_url,
        openai_model="stand-in",
    ) as service:
        told = run_script(
            CATCH
            + """
            const { address, key, old, young } = given;
            const nobody = client.createClient({ address });
            const admin = client.createClient({ address, credentials: { apiKey: ` ${key}\\n` } });
            const tokens = [old, young];
            const credentials = async () => ({ token: tokens.shift() ?? young });
            const ada = client.createClient({ address, credentials });
            const project = await admin.projects.create({ name: "Harbour", isPrivate: false });
            const refused = [
              await caught(() => nobody.me()),
              await caught(() => nobody.drafting.workflow(project.id)),
              await caught(() => ada.me()),
            ];
            const text = [];
            for await (const { type, data } of ada.chatStream(project.id, "What?")) {
              if (type === "text") text.push(data.delta);
            }
            return [refused, (await ada.me()).role, (await admin.me()).role, text];
            """,
            service.url,
            key="canary-service-key",
            old=token(-3600),
            young=token(3600),
        )
    assert told == [
        [
            [401, "unauthorized", NO_CREDENTIALS],
            [403, "forbidden", NO_CREDENTIALS],
            [401, "unauthorized", "The token has expired. Sign in again."],
        ],
        None,
        "admin",
        ["The", " answer", "."],
    ]


# --- documents


def test_an_upload_tells_how_far_it_is(run_script: Run, service: Service, project: str) -> None:
    document, events, sent, refused = run_script(
        CATCH
        + """
        const api = client.createClient({ address: given.address });
        const sent = [];
        const onProgress = (done, total) => sent.push([done, total]);
        const file = new File(["The state Alarm is reached at 4.90 m.\\n"], "Größe & more.txt");
        const [document] = await api.documents.upload(given.project, [file], { onProgress });
        const events = [];
        for await (const event of api.documents.events(document.id)) events.push(event);
        const data = new Blob([new Uint8Array(3_000_000)]);
        const refused = await caught(() =>
          api.documents.upload(given.project, [{ name: "zeros.bin", data }], { onProgress }),
        );
        const content = await api.documents.content(document.id);
        if ((await content.text()) !== (await file.text())) throw new Error("not the same file");
        return [await api.documents.get(document.id), events, sent, refused];
        """,
        service.url,
        project=project,
    )
    assert refused[:2] == [415, "unsupported_document"]
    # What was refused was sent before; Node tells only of what was taken.
    assert sent == sorted(sent, key=lambda pair: (pair[1], pair[0]))
    assert sent[-1][0] == sent[-1][1]
    assert events[-1]["data"] == {"document": document}
    assert document["name"] == "Größe & more.txt"


def test_an_upload_that_gets_stuck_or_is_given_up_ends(chromium: Browser) -> None:
    body = """
        const patience = { silenceMs: 250 };
        const files = [{ name: "zeros.bin", data: new Blob([new Uint8Array(3_000_000)]) }];
        const upload = (signal) => client
          .createClient({ address: given.address, patience })
          .documents.upload("p", files, { signal, onProgress: () => {} })
          .catch((error) => error);
        const leaving = new AbortController();
        const left = upload(leaving.signal);
        leaving.abort("Left.");
        return [(await upload()).code, await left];
    """
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        chromium.new_context() as context,
    ):
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert in_browser(context.new_page())(body, address) == ["unreachable", "Left."]
