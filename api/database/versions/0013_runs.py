"""Runs that outlive their process: whose they are, how they are asked again, what was streamed."""

from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add processes, what a run needs to be asked again, the log, and the keys of requests."""
    op.execute(_PROCESSES)
    op.execute(_RUNS)
    op.execute(_LOG)
    op.execute(_KEYS)
    op.execute(_MESSAGES)
    op.execute(_THREADS)


# A process that has not prolonged its lease is taken for dead. `vectors` names its vector store.
_PROCESSES = """
create table processes (
    id uuid primary key,
    lease_until timestamptz not null,
    vectors uuid
);
"""
# A run is ended, and so counted, once. One that is running without a process waits for one. The
# older ones have nobody to go on with them. A run of the legacy API has no conversation.
_RUNS = """
alter table runs drop constraint runs_id_fkey;
alter table runs alter column conversation_id drop not null;
alter table runs drop column lease_until;
alter table runs drop column is_counted;
alter table runs
    add column process_id uuid,
    add column question_id uuid references messages(id) on delete cascade,
    add column attempt smallint not null default 0,
    add column api text not null default 'chat' check (api in ('chat', 'drafting', 'legacy')),
    add column request json,
    add column stop_asked boolean not null default false,
    add column is_retryable boolean not null default false,
    add column next_run_id uuid,
    add column documents uuid[] not null default '{}',
    add column document_names text[] not null default '{}',
    add column is_followable boolean not null default true;

update messages set status = 'failed' where status = 'streaming';
update runs set status = 'failed', ended_at = now(),
    error = '{"message": "The service went down before the answer was complete."}'
where status = 'running';
update runs set is_followable = false;
update runs set question_id = (
    select q.id from messages q join messages a on a.conversation_id = q.conversation_id
    where a.id = runs.id and q.position < a.position and q.role = 'user'
    order by q.position desc limit 1
);

alter table runs alter column api drop default;

create index on runs (process_id) where status = 'running';
create index on runs (ended_at) where is_followable;
create index on runs (ended_at) where conversation_id is null;
create index on runs (question_id);
create index on runs (conversation_id);
"""
# The events from number `seq` on, one line each: name, space, data. The rows of a run are joined
# when it ends, so that Postgres can compress them; their places are to be used again soon.
_LOG = """
create table run_events (
    run_id uuid not null references runs(id) on delete cascade,
    seq int not null,
    count int not null,
    events text not null,
    primary key (run_id, seq)
) with (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 200);
"""
# The key comes first into the transaction that begins a run, so that others of the same key wait.
_KEYS = """
create table run_keys (
    owner_id uuid not null,
    route text not null,
    key text not null,
    body_hash bytea not null,
    run_id uuid not null references runs(id) on delete cascade deferrable initially deferred,
    created_at timestamptz not null default now(),
    primary key (owner_id, route, key)
);
create index on run_keys (run_id);
create index on run_keys (created_at);
"""
# An answer that another one to the same question replaces, at the same position.
_MESSAGES = """
alter table messages add column is_superseded boolean not null default false;
"""
# What was said is read from the messages; threads hold no copies any more.
_THREADS = """
do $$
begin
    if to_regclass('checkpoint_blobs') is not null then
        truncate checkpoints, checkpoint_blobs, checkpoint_writes;
    end if;
end
$$;
"""
