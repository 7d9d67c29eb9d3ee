//! `ringback bench`: every way to run it, small. Figures are looked at for their shape alone.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::database::{Backend, Database, on_both};
use crate::support::process::ringback_in;

const PATIENCE: Duration = Duration::from_secs(120);

/// Runs it on a database that holds nothing yet; what it prints with `--json`.
fn bench(database: &Database, arguments: &[&str]) -> Value {
    let url = match database.backend() {
        // It makes its own file.
        Backend::Sqlite => format!("sqlite://{}", database.folder().join("bench.db").display()),
        Backend::Postgres => database.url().to_owned(),
    };
    let all = [&["bench", "--json", "--database", &url], arguments].concat();
    let finished = ringback_in(Path::new("."), &all, PATIENCE).success();
    serde_json::from_str(&finished.stdout).expect("one JSON object")
}

fn positive(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

on_both!(jobs_go_to_a_callback_and_endpoints_with_larger_payloads);
fn jobs_go_to_a_callback_and_endpoints_with_larger_payloads(database: Database) {
    let more = ["--jobs", "60", "--in-flight", "8", "--endpoints", "3", "--payload", "4000"];
    let report = bench(&database, &more);
    assert!(positive(&report["jobsPerSecond"]), "{report}");
    assert!(positive(&report["cpuMsPerJob"]["server"]), "{report}");
    assert_eq!((&report["lost"], &report["duplicates"]), (&0.into(), &0.into()), "{report}");
}

on_both!(pairs_compare_a_history_with_none_and_leave_nothing_else_behind);
fn pairs_compare_a_history_with_none_and_leave_nothing_else_behind(database: Database) {
    let more = ["--jobs", "50", "--in-flight", "8", "--history", "3000", "--pairs", "2"];
    let compared = bench(&database, &more);
    let pairs = compared["pairs"].as_array().expect("pairs");
    assert_eq!(pairs.len(), 2);
    assert!(pairs.iter().all(|pair| positive(&pair["ratio"]["jobsPerSecond"])), "{compared}");
    assert!(positive(&compared["median"]["jobsPerSecond"]), "{compared}");
    if database.backend() == Backend::Postgres {
        let sql = "SELECT 1 / (CASE WHEN EXISTS (SELECT 1 FROM pg_database \
                   WHERE datname LIKE 'ringback_bench_%') THEN 0 ELSE 1 END)";
        database.connect().batch(sql).expect("no database of ours is left");
    }
}

on_both!(deliveries_that_are_due_go_to_many_endpoints);
fn deliveries_that_are_due_go_to_many_endpoints(database: Database) {
    let sent = bench(&database, &["--deliveries", "--jobs", "100", "--endpoints", "30"]);
    assert_eq!((&sent["deliveries"], &sent["endpoints"]), (&120.into(), &30.into()), "{sent}");
    assert!(positive(&sent["deliveriesPerSecond"]), "{sent}");
    assert_eq!((&sent["lost"], &sent["duplicates"]), (&0.into(), &0.into()), "{sent}");
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    for (arguments, told) in [
        (&["--history", "1500"][..], "a multiple of 1000"),
        (&["--pairs", "1"], "--history"),
        (&["--payload", "20000"], "16000"),
        (&["--endpoints", "1001"], "1000 at most"),
        (&["--deliveries", "--payload", "1"], "--payload"),
    ] {
        let all = [&["bench"], arguments].concat();
        let refused = ringback_in(Path::new("."), &all, PATIENCE).failure().stderr;
        assert!(refused.contains(told), "{arguments:?}: {refused}");
    }
}
