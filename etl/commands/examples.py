"""The examples with which the help of each command ends."""

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("callflow demo", "Try everything; it needs no account."),
        ("callflow init", "Set up your first source."),
        ("callflow help sync", "Say more about one command."),
        ("callflow -c eu.toml sync", "Use another configuration file."),
    ),
    "demo": (
        ("callflow demo", "Show everything."),
        ("callflow demo --channels 200000", "Show it with a long list."),
    ),
    "init": (
        ("callflow init", "Ask, and write callflow.toml."),
        ("callflow init --no-input eu.toml", "Write a commented file to fill in."),
        ("callflow init --schema >callflow.schema.json", "Let an editor complete and check it."),
    ),
    "check": (
        ("callflow check", "Check everything."),
        ("callflow check zoom_eu", "Check one source."),
        ("callflow check -v zoom_eu.flows", "Check one stream, and see each request."),
    ),
    "sync": (
        ("callflow sync", "Run every stream once."),
        ("callflow sync zoom_eu.flows old_desk", "Run one stream, and one source."),
        ("callflow sync --dry-run --full zoom_eu", "Look at what a run would write."),
        ("callflow sync --full --json >runs.jsonl", "Read whole lists; keep the results."),
    ),
    "status": (
        ("callflow status", "Show every stream."),
        ("callflow status --json", "Show them to a program."),
    ),
    "runs": (
        ("callflow runs", "Show the last 20 runs."),
        ("callflow runs zoom_eu.flows --limit 5", "Show the last 5 of one stream."),
    ),
    "changes": (
        ("callflow changes", "Show the changes of the last 7 days."),
        ("callflow changes --since 2026-11-20 zoom_eu", "Show those of one source since a day."),
        ('callflow changes --flow "Main IVR" --by ada', "Show what one editor did to a flow."),
    ),
    "show": (
        ('callflow show "Main IVR"', "Draw a flow as it is."),
        ('callflow show "Main IVR" --at 2026-11-17', "Draw it as it was then."),
        ("callflow show zoom_eu.flows --missing", "Name the flows that are not listed any more."),
    ),
    "diff": (
        ('callflow diff "Main IVR"', "Show what its last change was."),
        ('callflow diff "Main IVR" --from 7d', "Show what changed in a week."),
        ('callflow diff "Main IVR" --from 3 --to live', "Compare two of its versions."),
    ),
    "export": (
        ("callflow export today", "Write a CSV file for each view."),
        ("callflow export --history --format parquet all", "Write every version as Parquet."),
    ),
    "forget": (
        ("callflow forget old_desk", "Forget a source; asks first."),
        ("callflow forget desk/ccc-test --yes", "Forget one instance, without asking."),
    ),
    "daemon": (
        ("callflow daemon", "Sync on schedule."),
        ("callflow daemon --migrate --log-level warning", "Migrate first; log problems only."),
    ),
    "migrate": (
        ("callflow migrate", "Bring the schema up to date."),
        ("callflow migrate --rebuild-changes", "Also write the log of changes again."),
    ),
    "sandbox": (
        ("callflow sandbox -c sandbox.toml", "Serve, and write a configuration for it."),
        ("callflow sandbox --ports 0 0 0", "Serve on any free ports."),
    ),
    "sql": (
        ("callflow sql", "Open psql."),
        ('callflow sql "SELECT * FROM callflow.flows"', "Print a table."),
        ('callflow sql --csv "SELECT 1" >one.csv', "Write CSV."),
        ("callflow sql --at 2026-11-17 - <query.sql", "Answer a file's query as of a day."),
    ),
    "grant": (
        ("callflow grant powerbi", "Let a role read."),
        ("callflow grant dbt --writes analytics", "Let it also write to a schema."),
    ),
    "stop": (("callflow stop", "Stop the embedded Postgres."),),
    "completion": (
        ('eval "$(callflow completion bash)"', "Complete in this shell, until it ends."),
        ("callflow completion bash >>~/.bashrc", "Complete in every new bash."),
        ('callflow completion zsh >"${fpath[1]}/_callflow"', "The same for zsh."),
        ("callflow completion fish >~/.config/fish/completions/callflow.fish", "And for fish."),
    ),
    "help": (
        ("callflow help", "List the commands."),
        ("callflow help sync", "Show what sync does, and its options."),
    ),
}
"""For each command, and for callflow itself (""): what to type, and what that does."""
