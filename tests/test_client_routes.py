"""The client's methods for the routes that are no streams: each does what its route does."""

from pathlib import Path

import httpx
from conftest import Service, upload
from javascript import in_node, with_package
from sse import read
from standins.openai import OpenAIStandIn
from test_client_refusals import CATCH

NO_KEYS = (
    "Nobody needs a key here, for no credentials are set. "
    "Set API_KEY, JWT_SECRET or JWT_JWKS_URL first."
)

READS = {
    "me()": ("/me", "user"),
    "users({ limit: 1 })": ("/users?limit=1", "users"),
    "groups()": ("/groups", "groups"),
    "usage({ projectId: project })": ("/usage?projectId={project}", None),
    "limits()": ("/usage/limits", "limits"),
    "audit({ projectId: project, limit: 2 })": ("/audit?projectId={project}&limit=2", "entries"),
    "about()": ("/", None),
    "health()": ("/api/v1/system/health", None),
    "projects.list({ limit: 1 })": ("/projects?limit=1", "projects"),
    "projects.get(project)": ("/projects/{project}", "project"),
    "grants.list(project)": ("/projects/{project}/grants", "grants"),
    "documents.list(project)": ("/documents/projects/{project}", "documents"),
    "documents.get(document)": ("/documents/{document}", "document"),
    "conversations.config()": ("/chat/config", None),
    "conversations.recent({ limit: 1 })": ("/chat/recent?limit=1", "conversations"),
    "conversations.list(project)": ("/chat/projects/{project}/conversations", "conversations"),
    "conversations.get(conversation)": ("/chat/conversations/{conversation}", "conversation"),
    "conversations.source(chunk)": ("/chat/chunks/{chunk}/source", None),
    "run(run)": ("/runs/{run}", "run"),
    "providers.list()": ("/providers", "providers"),
    "providers.models()": ("/providers/models", "models"),
    "providers.admin()": ("/providers/admin", "providers"),
    "drafting.documentTypes()": ("/api/v1/document-types", "document_types"),
    "drafting.documentTypes(project)": (
        "/api/v1/document-types?project_id={project}",
        "document_types",
    ),
    "drafting.workflow(project)": ("/api/v1/projects/{project}/workflow", None),
    "drafting.status(project)": ("/api/v1/knowledge/status?project_id={project}", None),
    "drafting.search(project, 'a & b', { limit: 1 })": (
        "/api/v1/knowledge/search?project_id={project}&q=a%20%26%20b&limit=1",
        "results",
    ),
    "texts().list()": ("/api/v1/texts", "texts"),
    "texts(project).list()": ("/api/v1/projects/{project}/texts", "texts"),
    "texts().get('prompts/answer.md')": ("/api/v1/texts/prompts/answer.md", "text"),
    "texts(project).history('prompts/answer.md', { limit: 1 })": (
        "/api/v1/projects/{project}/texts/prompts/answer.md/history?limit=1",
        "versions",
    ),
    "texts(project).version('prompts/answer.md', version)": (
        "/api/v1/projects/{project}/texts/prompts/answer.md/versions/{version}",
        "text",
    ),
    "texts().diff('prompts/answer.md', { from: version })": (
        "/api/v1/texts/prompts/answer.md/diff?from={version}",
        None,
    ),
    "texts(project).used(used)": ("/api/v1/projects/{project}/versions/{used}", None),
}


def test_each_route_that_reads_gives_what_the_service_has(
    tmp_path: Path, service: Service, http: httpx.Client, project: str
) -> None:
    document = upload(http, project, "handbook.txt", b"The state Alarm is reached at 4.90 m.")
    events = {
        e.name: e.data
        for e in read(http, "POST", f"/chat/projects/{project}", json={"message": "Alarm?"})
    }
    ids = {
        "project": project,
        "document": document["id"],
        "conversation": events["meta"]["conversationId"],
        "run": events["meta"]["messageId"],
        "chunk": events["sources"]["chunks"][0]["id"],
        "used": events["done"]["promptVersion"],
        "version": http.get("/api/v1/texts/prompts/answer.md").json()["text"]["version"],
    }
    reads = [f"api.{call}" for call in READS]
    given = in_node(with_package(tmp_path))(
        """
        const api = client.createClient({ address: given.address });
        const names = Object.keys(given.ids);
        const answers = given.reads.map((call) =>
          new Function("api", ...names, `return ${call}`)(api, ...Object.values(given.ids)),
        );
        return Promise.all(answers);
        """,
        service.url,
        ids=ids,
        reads=reads,
    )
    for call, ((path, key), seen) in zip(
        READS, zip(READS.values(), given, strict=True), strict=True
    ):
        answer = http.get(path.format(**ids))
        assert answer.status_code == 200, answer.text
        assert seen == (answer.json()[key] if key else answer.json()), call


def test_each_route_that_changes_something_does(
    tmp_path: Path, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    provider = {"name": "Acme", "slug": "acme-client", "baseUrl": model.base_url, "apiKey": "sk-1"}
    told = in_node(with_package(tmp_path))(
        CATCH
        + """
        const api = client.createClient({ address: given.address });
        const me = await api.me();
        const project = await api.projects.create({ name: "Quay", color: "#336699" });
        const renamed = await api.projects.change(project.id, { name: "Pier" });
        const target = { targetType: "user", targetId: me.id };
        const made = await api.grants.put(project.id, { ...target, tier: "use" });
        const changed = await api.grants.put(project.id, { ...target, tier: "edit" });
        await api.grants.delete(project.id, made.grant.id);

        const ingested = await api.drafting.ingest(project.id, "PLAN.md", "# Plan\\n\\nBuild it.");
        const [plan] = await api.documents.list(project.id);
        await api.documents.delete(plan.id);

        const path = "prompts/answer.md";
        const texts = api.texts(project.id);
        const { version, content } = await texts.get(path);
        const { text } = await texts.put(path, `${content}\\nBe brief.\\n`, version);
        const { text: older } = await texts.restore(path, version, text.version);
        const beneath = await texts.delete(path, older.version);
        const preview = await texts.preview(path, { content: "Hello." });
        const wrong = await texts.check({ [path]: "{{ nobody }}" });
        const unusable = await texts.put(path, "{{ nobody }}", version).catch((error) => error);

        const provider = await api.providers.create({ ...given.provider, models: [{ name: "m" }] });
        const named = await api.providers.change(provider.id, { name: "Acme & Co." });
        const trial = await api.providers.test(provider.id, { model: "m" });
        await api.providers.delete(provider.id);

        let conversation;
        for await (const { type, data } of api.chatStream(project.id, "What?")) {
          if (type === "meta") conversation = data.conversationId;
        }
        const titled = await api.conversations.rename(conversation, "Quays");
        await api.conversations.delete(conversation);
        await api.projects.delete(project.id);
        return {
          project: renamed.name,
          grants: [made.action, changed.action, changed.grant.tier],
          ingested: ingested.doc_name,
          texts: [text.source, beneath.version === version, older.content === content],
          preview: preview.rendered,
          wrong: wrong.map(({ severity, line }) => [severity, line]),
          unusable: [unusable.status, unusable.findings.length > 0],
          provider: [named.name, trial.ok],
          title: titled.title,
          key: await caught(() => api.keys.create({ name: "report" })),
          gone: await caught(() => api.projects.get(project.id)),
        };
        """,
        service.url,
        provider=provider,
    )
    assert told == {
        "project": "Pier",
        "grants": ["created", "updated", "edit"],
        "ingested": "PLAN.md",
        "texts": ["override", True, True],
        "preview": "Hello.",
        "wrong": [["error", 1]],
        "unusable": [422, True],
        "provider": ["Acme & Co.", True],
        "title": "Quays",
        "key": [409, "no_credentials_set", NO_KEYS],
        "gone": [404, "not_found", "There is no such project."],
    }
