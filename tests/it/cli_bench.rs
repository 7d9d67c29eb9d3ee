//! `ringback bench`: every way to run it, small. Figures are looked at for their shape alone.

use std::fs;
use std::path::Path;
use std::time::Duration;

use ringback::store::{Connection, Location, Statement};
use serde_json::Value;

use crate::support::database::{Backend, Database, number_on, on_both};
use crate::support::machine::{children_of, signal};
use crate::support::process::{Server, data_dir, ringback_in, ringback_with, start_ringback};
use crate::support::wait::eventually;

const PATIENCE: Duration = Duration::from_secs(120);

#[derive(diesel::QueryableByName)]
struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    number: i64,
}

fn url(database: &Database) -> String {
    match database.backend() {
        // It makes its own file.
        Backend::Sqlite => format!("sqlite://{}", database.folder().join("bench.db").display()),
        Backend::Postgres => database.url().to_owned(),
    }
}

/// Runs it on a database that holds nothing yet; what it prints with `--json`.
fn bench(database: &Database, arguments: &[&str]) -> Value {
    let url = url(database);
    let all = [&["bench", "--json", "--database", &url], arguments].concat();
    let finished = ringback_in(Path::new("."), &all, PATIENCE).success();
    serde_json::from_str(&finished.stdout).expect("one JSON object")
}

fn connect(database: &Database) -> Connection {
    let location = Location::parse(&url(database)).expect("a location");
    Connection::open(&location).expect("its database")
}

/// Those of runs that are still under way beside this one go too.
fn leaves_no_database(database: &Database) {
    if database.backend() == Backend::Postgres {
        let sql = "SELECT COUNT(*) AS number FROM pg_database \
                   WHERE datname LIKE 'ringback_bench_%'";
        let mut connection = database.connect();
        let gone = || (number_on(&mut connection, sql) == 0).then_some(());
        eventually("databases of ours to go", PATIENCE, gone);
    }
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
    assert!(positive(&report["submitToEndpointsMs"]["p99"]), "{report}");
    assert_eq!((&report["lost"], &report["duplicates"]), (&0.into(), &0.into()), "{report}");
    let mut connection = connect(&database);
    let rates = "SELECT COUNT(*) AS number FROM applications WHERE rate_per_second IS NOT NULL";
    assert_eq!(number_on(&mut connection, rates), 0, "the rate is the default one");
    if database.backend() == Backend::Postgres {
        // As a run beside a history.
        let settled = "SELECT SUM(vacuum_count)::bigint AS number FROM pg_stat_user_tables \
                       WHERE relname IN ('jobs', 'attempts', 'feed_chunks')";
        assert_eq!(number_on(&mut connection, settled), 3);
    }
}

on_both!(a_hanging_endpoint_is_owed_everything_and_nothing_is_lost);
fn a_hanging_endpoint_is_owed_everything_and_nothing_is_lost(database: Database) {
    let more = ["--jobs", "60", "--in-flight", "8", "--endpoints", "3", "--hanging", "1"];
    let report = bench(&database, &more);
    assert!(positive(&report["submitToEndpointsMs"]["p50"]), "{report}");
    assert_eq!((&report["lost"], &report["duplicates"]), (&0.into(), &0.into()), "{report}");
    let mut connection = connect(&database);
    let mut count =
        |what| number_on(&mut connection, &format!("SELECT COUNT(*) AS number FROM {what}"));
    // 60 jobs and 2 before them.
    assert_eq!((count("live_deliveries"), count("deliveries WHERE status = 1")), (62, 62 * 3));
}

on_both!(pairs_compare_a_hanging_endpoint_with_none);
fn pairs_compare_a_hanging_endpoint_with_none(database: Database) {
    let more = ["--jobs", "40", "--in-flight", "8", "--endpoints", "3", "--hanging", "1"];
    let compared = bench(&database, &[&more[..], &["--pairs", "2"]].concat());
    assert_eq!(compared["pairs"].as_array().map(Vec::len), Some(2), "{compared}");
    for name in ["jobsPerSecond", "submitToEndpointsMsP50", "submitToEndpointsMsP99"] {
        assert!(positive(&compared["median"][name]), "{name}: {compared}");
    }
    leaves_no_database(&database);
}

on_both!(pairs_compare_a_history_with_none_and_leave_nothing_else_behind);
fn pairs_compare_a_history_with_none_and_leave_nothing_else_behind(database: Database) {
    let more = ["--jobs", "50", "--in-flight", "8", "--history", "2003", "--pairs", "2"];
    let compared = bench(&database, &more);
    let pairs = compared["pairs"].as_array().expect("pairs");
    assert_eq!(pairs.len(), 2);
    assert!(pairs.iter().all(|pair| positive(&pair["ratio"]["jobsPerSecond"])), "{compared}");
    assert!(positive(&compared["median"]["jobsPerSecond"]), "{compared}");
    let with = &compared["pairs"][0]["with"];
    assert!(positive(&with["submitMs"]["p50"]) && with["submitToEndpointsMs"].is_null(), "{with}");
    leaves_no_database(&database);
}

on_both!(an_idle_server_is_measured_beside_a_history);
fn an_idle_server_is_measured_beside_a_history(database: Database) {
    let idle = bench(&database, &["--idle", "1", "--history", "1"]);
    let starts = &idle["startToReadyMs"];
    assert!(positive(&starts["median"]), "{idle}");
    assert!(starts["worst"].as_f64() >= starts["median"].as_f64(), "{idle}");
    assert!(idle["cpuPercent"]["server"].as_f64().is_some_and(|cpu| cpu < 100.0), "{idle}");
    assert!(idle["cpuPercent"]["total"].is_number(), "{idle}");
    assert!(positive(&idle["memoryMb"]), "{idle}");
    assert!(idle["memoryMb"].as_f64() <= idle["peakMemoryMb"].as_f64(), "{idle}");
}

on_both!(deliveries_that_are_due_go_to_many_endpoints);
fn deliveries_that_are_due_go_to_many_endpoints(database: Database) {
    let sent = bench(&database, &["--deliveries", "--jobs", "100", "--endpoints", "30"]);
    assert_eq!((&sent["deliveries"], &sent["endpoints"]), (&120.into(), &30.into()), "{sent}");
    assert!(positive(&sent["deliveriesPerSecond"]), "{sent}");
    assert_eq!((&sent["lost"], &sent["duplicates"]), (&0.into(), &0.into()), "{sent}");
}

/// The tables, before there is anything in them, and the master key that goes with them.
fn prepare(database: &Database) -> String {
    let (url, folder) = (url(database), data_dir(database));
    let made = ["apps", "create", "other", "--database", &url, "--data-dir", &folder];
    ringback_in(Path::new("."), &made, PATIENCE).success();
    let key = fs::read_to_string(format!("{folder}/master.key")).expect("a master key");
    key.trim().to_owned()
}

/// Has the database spoil every seventh row, by its key, after these columns of it are written.
fn spoil(connection: &mut Connection, table: &str, columns: &str, key: &str, sql: &str) {
    connection
        .batch(&match connection.backend() {
            Backend::Sqlite => format!(
                "CREATE TRIGGER spoils AFTER UPDATE OF {columns} ON {table} \
                 WHEN NEW.{key} % 7 = 0 BEGIN {sql}; END"
            ),
            Backend::Postgres => format!(
                "CREATE OR REPLACE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN {sql}; RETURN NULL; END $$; \
                 CREATE TRIGGER spoils AFTER UPDATE OF {columns} ON {table} \
                 FOR EACH ROW WHEN (NEW.{key} % 7 = 0) EXECUTE FUNCTION spoil()"
            ),
        })
        .expect("a trigger");
}

on_both!(deliveries_that_are_not_stored_whole_are_told);
fn deliveries_that_are_not_stored_whole_are_told(database: Database) {
    let (url, key) = (url(&database), prepare(&database));
    let environment = [("RINGBACK_MASTER_KEY", &*key)];
    let bench = ["bench", "--deliveries", "--jobs", "60", "--endpoints", "2", "--database", &url];
    let run = || ringback_with(Path::new("."), &bench, &environment, PATIENCE);
    run().success();
    let mut connection = connect(&database);
    for (table, columns, key, sql, told) in [
        (
            "attempts",
            "outcome",
            "delivery_id",
            "DELETE FROM attempts WHERE delivery_id = NEW.delivery_id",
            "deliveries have an attempt closed with its HTTP status and not 60",
        ),
        (
            "attempts",
            "outcome",
            "delivery_id",
            "UPDATE attempts SET response_status = 500 WHERE delivery_id = NEW.delivery_id",
            "deliveries have an attempt closed with its HTTP status and not 60",
        ),
        (
            "deliveries",
            "status",
            "id",
            "DELETE FROM deliveries WHERE id = NEW.id",
            "deliveries are stored and not 60",
        ),
        (
            "deliveries",
            "status",
            "id",
            "UPDATE deliveries SET status = 2 WHERE id = NEW.id AND status <> 2",
            "deliveries are delivered and not 60",
        ),
    ] {
        spoil(&mut connection, table, columns, key, sql);
        let refused = run().failure();
        assert!(refused.stderr.contains(told), "{sql}: {}", refused.stderr);
        assert_eq!(refused.status.code(), Some(1));
        let gone = match database.backend() {
            Backend::Sqlite => "DROP TRIGGER spoils".to_owned(),
            Backend::Postgres => format!("DROP TRIGGER spoils ON {table}"),
        };
        connection.batch(&gone).expect("the trigger is there");
    }
}

#[test]
fn a_limit_of_requests_is_told_by_its_name() {
    let database = Database::fresh(Backend::Sqlite);
    let (url, key) = (url(&database), prepare(&database));
    let slower = "CREATE TRIGGER slows AFTER INSERT ON applications BEGIN \
                  UPDATE applications SET rate_per_second = 5, rate_burst = 5; END";
    connect(&database).batch(slower).expect("a trigger");
    let bench = ["bench", "--jobs", "50", "--database", &url];
    let environment = [("RINGBACK_MASTER_KEY", &*key)];
    let refused = ringback_with(Path::new("."), &bench, &environment, PATIENCE).failure().stderr;
    assert!(refused.contains("rate_per_second") && refused.contains("rate_limited"), "{refused}");
}

#[test]
fn a_server_that_has_the_file_is_left_alone() {
    let database = Database::fresh(Backend::Sqlite);
    let _server = Server::on(&database, &[]);
    let bench = ["bench", "--jobs", "5", "--database", database.url()];
    let refused = ringback_in(Path::new("."), &bench, PATIENCE).failure().stderr;
    assert!(refused.contains("another ringback server is running on"), "{refused}");
    let written = "SELECT COUNT(*) AS number FROM applications";
    assert_eq!(number_on(&mut database.connect(), written), 0);
}

#[test]
fn the_server_is_given_what_libpq_reads() {
    let database = Database::fresh(Backend::Postgres);
    let url = url::Url::parse(database.url()).expect("a URL");
    let port = url.port().unwrap_or(5_432).to_string();
    let environment = [
        ("PGHOST", url.host_str().expect("a host")),
        ("PGPORT", &port),
        ("PGUSER", url.username()),
        ("PGPASSWORD", url.password().unwrap_or_default()),
    ];
    let shorter = format!("postgres://{}", url.path());
    let bench = ["bench", "--json", "--jobs", "5", "--database", &shorter];
    let finished = ringback_with(Path::new("."), &bench, &environment, PATIENCE).success();
    let report: Value = serde_json::from_str(&finished.stdout).expect("one JSON object");
    assert!(report["cpuMsPerJob"]["database"].is_number(), "{report}");
}

/// What has ended has no command line any more, whether or not somebody waits for it.
fn runs(pid: u32, what: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&command).contains(what)
}

#[test]
fn an_interrupt_ends_the_filling_of_a_history() {
    let database = Database::fresh(Backend::Sqlite);
    let url = url(&database);
    let arguments = ["bench", "--history", "90000000", "--jobs", "10", "--database", &url];
    let bench = start_ringback(&arguments, database.folder());
    eventually("the history to grow", PATIENCE, || {
        let beyond_the_pattern = "SELECT COUNT(*) AS number FROM jobs WHERE id > 200000";
        let is_there = database.folder().join("bench.db").exists();
        let is_migrated = || connect(&database).load::<Count>(Statement::new(beyond_the_pattern));
        let counted = is_there.then(is_migrated)?.ok()?;
        counted.first().filter(|row| row.number > 0).map(|_| ())
    });
    assert!(signal(bench.pid(), "TERM"), "it is running");
    eventually("it to end", PATIENCE, || (!runs(bench.pid(), "bench")).then_some(()));
}

#[test]
fn an_interrupt_while_a_database_is_made_leaves_none() {
    let database = Database::fresh(Backend::Postgres);
    let url = url(&database);
    // Nobody makes a database meanwhile.
    let holder = database.hold("LOCK TABLE pg_database IN SHARE MODE");
    let arguments = [
        "bench",
        "--jobs",
        "5",
        "--pairs",
        "1",
        "--hanging",
        "1",
        "--endpoints",
        "1",
        "--database",
        &url,
    ];
    let bench = start_ringback(&arguments, database.folder());
    let mut connection = database.connect();
    eventually("it to make a database", PATIENCE, || {
        let waiting = "SELECT COUNT(*) AS number FROM pg_stat_activity \
                       WHERE wait_event_type = 'Lock' AND query LIKE 'CREATE DATABASE ringback_bench%'";
        (number_on(&mut connection, waiting) == 1).then_some(())
    });
    assert!(signal(bench.pid(), "TERM"), "it is running");
    drop(holder);
    eventually("it to end", PATIENCE, || (!runs(bench.pid(), "bench")).then_some(()));
    let pid = bench.pid();
    let left = format!(
        "SELECT COUNT(*) AS number FROM pg_database WHERE datname LIKE 'ringback_bench_{pid}_%'"
    );
    assert_eq!(number_on(&mut connection, &left), 0);
}

#[test]
fn a_database_on_which_somebody_works_is_left_alone() {
    let database = Database::fresh(Backend::Postgres);
    let _server = Server::on(&database, &[]);
    let url = url(&database);
    let key = fs::read_to_string(format!("{}/master.key", data_dir(&database))).expect("its key");
    let key = [("RINGBACK_MASTER_KEY", key.trim())];
    let bench = ["bench", "--jobs", "5", "--database", &url];
    let refused = ringback_with(Path::new("."), &bench, &key, PATIENCE).failure().stderr;
    assert!(refused.contains("another ringback server is at work"), "{refused}");
    let written = "SELECT COUNT(*) AS number FROM applications";
    assert_eq!(number_on(&mut database.connect(), written), 0);
    let bad = [("RINGBACK_MASTER_KEY", "zz")];
    let refused = ringback_with(Path::new("."), &bench, &bad, PATIENCE).failure().stderr;
    assert!(refused.contains("master_key must be 64 hex digits"), "{refused}");
}

#[test]
fn a_killed_bench_takes_its_server_along() {
    let database = Database::fresh(Backend::Sqlite);
    let url = url(&database);
    let arguments = ["bench", "--idle", "3600", "--database", &url];
    let bench = start_ringback(&arguments, database.folder());
    let server = eventually("its server and the guard", PATIENCE, || {
        let children = children_of(bench.pid());
        let guarded = children.iter().any(|pid| runs(*pid, "TERM"));
        children.into_iter().find(|pid| guarded && runs(*pid, "serve"))
    });
    drop(bench);
    eventually("the server to end", PATIENCE, || (!runs(server, "serve")).then_some(()));
}

#[test]
fn what_cannot_be_measured_is_refused_by_name() {
    for (arguments, told) in [
        (&["--history", "0"][..], "from 1 to 100000000"),
        (&["--pairs", "1"], "--history"),
        (&["--payload", "20000"], "16000"),
        (&["--endpoints", "1001"], "1000 at most"),
        (&["--deliveries", "--payload", "1"], "--payload"),
        (&["--hanging", "1"], "--endpoints"),
        (&["--hanging", "3", "--endpoints", "2"], "--endpoints 2: 2 at most"),
        (&["--hanging", "1001", "--endpoints", "1000"], "1 to 1000"),
        (&["--deliveries", "--hanging", "1", "--endpoints", "1"], "--hanging"),
        (
            &["--pairs", "1", "--history", "1000", "--hanging", "1", "--endpoints", "1"],
            "--history 1000 and --hanging 1",
        ),
        (&["--idle", "3601"], "1 to 3600"),
        (&["--idle", "1", "--jobs", "5"], "--jobs"),
        (&["--idle", "1", "--endpoints", "5"], "--endpoints"),
    ] {
        let all = [&["bench"], arguments].concat();
        let refused = ringback_in(Path::new("."), &all, PATIENCE).failure();
        assert!(refused.stderr.contains(told), "{arguments:?}: {}", refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
    }
}
