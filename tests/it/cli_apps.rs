//! `ringback apps`: applications, their keys and secrets, and what servers make of a change.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ringback::clock::Clock;
use serde_json::{Value, json};

use crate::support::database::{Backend, Database, on_both};
use crate::support::http::Client;
use crate::support::machine::{self, Finished};
use crate::support::process::{Application, Server, data_dir, ringback};
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;
/// A change of a key has reached every node by then.
const EVERYWHERE: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(60);

/// `ringback apps ARGUMENTS` on a database.
#[track_caller]
fn apps(database: &Database, arguments: &[&str]) -> Finished {
    let data = data_dir(database);
    let mut all = vec!["apps"];
    all.extend(arguments);
    all.extend(["--database", database.url(), "--data-dir", &data]);
    ringback(&all)
}

#[track_caller]
fn listed(database: &Database, id: &str) -> Value {
    let all = apps(database, &["list", "--json"]).success().json();
    let all = all.as_array().expect("a list");
    all.iter().find(|one| one["id"] == id).cloned().unwrap_or_else(|| panic!("no {id}: {all:?}"))
}

/// The API keys among an application's credentials.
fn keys(listed: &Value) -> Vec<&Value> {
    let all = listed["credentials"].as_array().expect("credentials");
    all.iter().filter(|one| one["kind"] == "api_key").collect()
}

fn status(client: &Client) -> u16 {
    client.get("/v1/jobs").status
}

/// Looks until a change that was just made shows. Who asks later than it may take has to see it; a
/// look that is itself late proves nothing.
#[track_caller]
fn spreads<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let changed = Instant::now();
    eventually(what, PATIENCE, || {
        let asked = changed.elapsed();
        let found = look();
        assert!(found.is_some() || asked <= EVERYWHERE, "asked after {asked:?}, not yet: {what}");
        found
    })
}

/// Waits until every client is answered so, and no longer than a change may take.
#[track_caller]
fn soon(clients: &[Client], wanted: u16) {
    spreads(&format!("all are answered with {wanted}"), || {
        clients.iter().all(|client| status(client) == wanted).then_some(())
    });
}

on_both!(applications_are_made_and_listed_without_a_server);
fn applications_are_made_and_listed_without_a_server(database: Database) {
    let made = apps(&database, &["create", "shop", "--json"]).success().json();
    let members: BTreeSet<&String> = made.as_object().expect("one object").keys().collect();
    assert_eq!(
        members,
        ["id", "name", "apiKey", "signingSecret"].map(str::to_owned).iter().collect()
    );
    assert_eq!(made["name"], "shop");
    assert!(made["signingSecret"].as_str().is_some_and(|secret| secret.starts_with("whsec_")));
    let said = apps(&database, &["create", "for people"]).success().stdout;
    assert!(
        said.contains("for people") && said.contains("whsec_") && said.contains("only now"),
        "{said}"
    );

    for output in [apps(&database, &["list"]), apps(&database, &["list", "--json"])] {
        let text = output.success().stdout;
        assert!(text.contains("shop") && text.contains("for people"), "{text}");
        for secret in ["apiKey", "signingSecret"] {
            assert!(!text.contains(made[secret].as_str().expect("text")), "{text}");
        }
    }
    let shown = listed(&database, made["id"].as_str().expect("an id"));
    assert_eq!((&shown["disabled"], keys(&shown).len()), (&json!(false), 1));
    assert_eq!(keys(&shown)[0]["scopes"], json!(["*"]));

    for (bad, said) in [
        (vec!["create", "x", "--scopes", "jobs:fly"], "jobs:fly"),
        (vec!["create", "x", "--expires-at", "soon"], "soon"),
        (vec!["create", "x", "--rate-per-second", "0"], "0"),
        (vec!["create", "x", "--rate-burst", "5"], "--rate-per-second"),
        (vec!["rotate-key", "nobody"], "nobody"),
        (vec!["rotate-secret", "nobody"], "nobody"),
        (vec!["disable", "nobody"], "nobody"),
        (vec!["set-rate", "nobody"], "nobody"),
    ] {
        let refused = apps(&database, &bad).failure();
        assert!(refused.stderr.contains(said), "{bad:?}: {}", refused.stderr);
        assert!(!refused.stderr.contains("panicked"), "{}", refused.stderr);
    }
}

/// A server on SQLite, two on Postgres; a client of each with that key.
fn nodes(database: &Database) -> Vec<Server> {
    let count = if database.backend() == Backend::Postgres { 2 } else { 1 };
    (0..count).map(|_| Server::on(database, &["--egress-allow", "127.0.0.0/8"])).collect()
}

fn clients(nodes: &[Server], key: &str) -> Vec<Client> {
    nodes.iter().map(|node| node.client().with_key(key)).collect()
}

on_both!(keys_end_on_every_node);
fn keys_end_on_every_node(database: Database) {
    let application = Application::create(&database, "shop");
    let nodes = nodes(&database);
    let old = clients(&nodes, &application.api_key);
    soon(&old, 200);

    // A new key works at once and the old one ends.
    let rotated = apps(&database, &["rotate-key", "shop", "--json"]).success().json();
    assert_eq!(rotated.as_object().map(|members| members.len()), Some(1));
    let new = clients(&nodes, rotated["apiKey"].as_str().expect("a key"));
    soon(&new, 200);
    soon(&old, 401);

    // With an overlap both work, and then only the newest.
    let rotate = |overlap: &str| {
        let rotated = apps(&database, &["rotate-key", &application.id, "--overlap", overlap]);
        clients(&nodes, rotated.success().stdout.trim())
    };
    let newer = rotate("600");
    soon(&newer, 200);
    assert!(new.iter().all(|client| status(client) == 200));
    let newest = rotate("1");
    soon(&newest, 200);
    eventually("the overlap is over", PATIENCE, || {
        let mut older = new.iter().chain(&newer);
        older.all(|client| status(client) == 401).then_some(())
    });

    apps(&database, &["disable", "shop"]).success();
    soon(&newest, 403);
    assert_eq!(newest[0].get("/v1/jobs").json()["code"], "application_disabled");
    assert_eq!(listed(&database, &application.id)["disabled"], true);
    apps(&database, &["enable", "shop"]).success();
    soon(&newest, 200);

    // Scopes and an end of its own.
    let narrow = ["rotate-key", "shop", "--scopes", "files:read", "--json"];
    let key_of = |made: Value| made["apiKey"].as_str().expect("a key").to_owned();
    let narrow = clients(&nodes, &key_of(apps(&database, &narrow).success().json()));
    soon(&narrow, 403);
    assert_eq!(narrow[0].get("/v1/files").status, 200);
    let end = Clock::system().now().plus_millis(1_000).to_string();
    let brief = ["create-key", "shop", "--scopes", "files:read", "--expires-at", &end, "--json"];
    let brief = clients(&nodes, &key_of(apps(&database, &brief).success().json()));
    eventually("the key has expired", PATIENCE, || {
        brief.iter().all(|client| client.get("/v1/files").status == 401).then_some(())
    });
    assert_eq!(brief[0].get("/v1/files").json()["code"], "key_expired");
    assert_eq!(narrow[0].get("/v1/files").status, 200, "the other one has no end");
    let shown = listed(&database, &application.id);
    assert!(keys(&shown).iter().any(|key| key["dateExpires"] == end.as_str()), "{shown}");
}

on_both!(one_key_of_several_is_revoked_everywhere);
fn one_key_of_several_is_revoked_everywhere(database: Database) {
    let application = Application::create(&database, "shop");
    let nodes = nodes(&database);
    let first = clients(&nodes, &application.api_key);
    let made = apps(&database, &["create-key", "shop", "--scopes", "jobs", "--json"]);
    let made = made.success().json();
    let second = clients(&nodes, made["apiKey"].as_str().expect("a key"));
    soon(&second, 200);
    soon(&first, 200);

    let shown = listed(&database, &application.id);
    let id = keys(&shown)
        .iter()
        .find(|key| key["scopes"] == json!(["jobs"]))
        .and_then(|key| key["id"].as_str().map(str::to_owned))
        .expect("the new key is listed with its scope");
    apps(&database, &["revoke", "shop", &id]).success();
    soon(&second, 401);
    assert!(first.iter().all(|client| status(client) == 200), "the other key goes on");
    let again = apps(&database, &["revoke", "shop", &id]).failure();
    assert!(again.stderr.contains(&id), "{}", again.stderr);
    let shown = listed(&database, &application.id);
    let revoked = keys(&shown).iter().filter(|key| key["dateRevoked"].is_string()).count();
    assert_eq!(revoked, 1, "{shown}");
}

on_both!(the_only_secret_that_signs_is_not_revoked);
fn the_only_secret_that_signs_is_not_revoked(database: Database) {
    let application = Application::create(&database, "shop");
    let secrets = || {
        let shown = listed(&database, &application.id);
        let all = shown["credentials"].as_array().expect("credentials").iter();
        let secrets = all.filter(|one| one["kind"] == "signing_secret");
        secrets.map(|one| one["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    let first = secrets().pop().expect("it was made with one");
    let refused = apps(&database, &["revoke", "shop", &first]).failure().stderr;
    assert!(refused.contains(&first) && refused.contains("only one that signs"), "{refused}");

    // With another one beside it, it may go, and then that one is the only one.
    apps(&database, &["rotate-secret", "shop"]).success();
    let second = secrets().into_iter().find(|id| *id != first).expect("a second one");
    let refused = apps(&database, &["revoke", "shop", &second]).failure().stderr;
    assert!(refused.contains("only one that signs"), "the first ends by itself: {refused}");
    apps(&database, &["revoke", "shop", &first]).success();
    apps(&database, &["revoke", "shop", &second]).failure();
    let again = apps(&database, &["revoke", "shop", &first]).failure().stderr;
    assert!(again.contains("not known"), "{again}");

    // One whose time is over signs nothing.
    apps(&database, &["rotate-secret", "shop", "--overlap", "0"]).success();
    let third = secrets().into_iter().find(|id| *id != first && *id != second);
    apps(&database, &["revoke", "shop", &third.expect("a third one")]).failure();
    apps(&database, &["revoke", "shop", &second]).success();
    // Keys are another matter: without one an application is shut out, and sends as before.
    let key = keys(&listed(&database, &application.id))[0]["id"].as_str().map(str::to_owned);
    apps(&database, &["revoke", "shop", &key.expect("an id")]).success();
}

#[test]
fn the_data_folder_is_asked_for_only_where_it_is_needed() {
    let run = |arguments: &[&str], variables: &[(&str, &str)], folder: &Path| {
        let mut command = machine::clean_command(env!("CARGO_BIN_EXE_ringback"));
        command.arg("apps").args(arguments).envs(variables.iter().copied()).current_dir(folder);
        machine::finish(&mut command, PATIENCE)
    };
    let key = "17".repeat(32);
    let variables = [("RINGBACK_MASTER_KEY", key.as_str())];
    for backend in [Backend::Postgres, Backend::Sqlite] {
        let database = Database::fresh(backend);
        let url = database.url();
        let folder = |name: &str| {
            let folder = database.folder().join(name);
            fs::create_dir(&folder).expect("our own folder");
            folder
        };
        let (made, other, third) = (folder("made"), folder("other"), folder("third"));
        run(&["create", "shop", "--database", url], &variables, &made).success();
        let listed = run(&["list", "--database", url], &variables, &other).success().stdout;
        assert!(listed.contains("shop"), "{listed}");
        // Without the key, and where the database is to be, a missing folder is a mistake.
        for refused in [
            run(&["list", "--database", url], &[], &third),
            run(&["list"], &variables, &third),
            run(&["list", "--database", "sqlite://ringback-data/x.db"], &variables, &third),
        ] {
            let said = refused.failure().stderr;
            assert!(said.contains("the data folder ringback-data is not there"), "{said}");
        }
        assert_eq!(fs::read_dir(&third).expect("our own folder").count(), 0);
    }
}

on_both!(the_last_use_of_a_key_is_shown);
fn the_last_use_of_a_key_is_shown(database: Database) {
    let application = Application::create(&database, "shop");
    assert_eq!(keys(&listed(&database, &application.id))[0]["dateLastUsed"], Value::Null);
    let before = Clock::system().now().to_string();
    let server = Server::on(&database, &[]);
    server.client_of(&application).get("/v1/jobs").expect(200);
    let used = eventually("the use is written down", PATIENCE, || {
        let shown = listed(&database, &application.id);
        keys(&shown)[0]["dateLastUsed"].as_str().map(str::to_owned)
    });
    assert!(used >= before && used <= Clock::system().now().to_string(), "{used}");
    let people = apps(&database, &["list"]).success().stdout;
    assert!(people.contains(&used), "{people}");
}

on_both!(a_rate_of_its_own_is_kept_to);
fn a_rate_of_its_own_is_kept_to(database: Database) {
    let options = ["--rate-per-second", "1", "--rate-burst", "3"];
    let application = Application::create_with(&database, "shop", &options);
    let server = Server::on(&database, &[]);
    let client = server.client_of(&application);
    let policy = |client: &Client| {
        client.get("/v1/jobs").header("ratelimit-policy").unwrap_or_default().to_owned()
    };
    assert!(policy(&client).contains("q=3"));
    let refused = eventually("too many", PATIENCE, || {
        let answer = client.get("/v1/jobs");
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(refused.json()["code"], "rate_limited");
    let wait: u64 = refused.header("retry-after").and_then(|text| text.parse().ok()).expect("when");
    assert!((1..=2).contains(&wait), "{wait}");
    assert!(refused.header("ratelimit").is_some_and(|text| text.contains("r=0")));

    apps(&database, &["set-rate", "shop", "--rate-per-second", "5000"]).success();
    spreads("the new rate counts", || policy(&client).contains("q=5000").then_some(()));
    assert_eq!(listed(&database, &application.id)["ratePerSecond"], 5000);
    apps(&database, &["set-rate", "shop"]).success();
    spreads("the server's own rate counts", || policy(&client).contains("q=10000").then_some(()));
}

on_both!(two_secrets_sign_while_they_overlap);
fn two_secrets_sign_while_they_overlap(database: Database) {
    let application = Application::create(&database, "shop");
    let server = Server::on(&database, &["--egress-allow", "127.0.0.0/8"]);
    let client = server.client_of(&application);
    let receiver = Receiver::start();
    let next = |count: usize| {
        let job = json!({
            "type": "urn:job:noop", "specification": {}, "callbackUrl": receiver.url("/hook"),
        });
        client.post("/v1/jobs", &job).expect(202);
        receiver.wait_for(count, PATIENCE).pop().expect("the latest")
    };
    let first = next(1);
    first.verify(&application.signing_secret).expect("the first secret signs");

    let rotated = ["rotate-secret", "shop", "--overlap", "600", "--json"];
    let rotated = apps(&database, &rotated).success().json();
    let second = rotated["signingSecret"].as_str().expect("a secret").to_owned();
    let mut count = 1;
    let both = spreads("the new secret signs", || {
        count += 1;
        let webhook = next(count);
        webhook.verify(&second).is_ok().then_some(webhook)
    });
    both.verify(&application.signing_secret).expect("the old one signs beside it");
    assert_eq!(both.header("webhook-signature").map(|text| text.split(' ').count()), Some(2));

    let third = apps(&database, &["rotate-secret", "shop", "--overlap", "0"]).success().stdout;
    spreads("only the newest signs", || {
        count += 1;
        let webhook = next(count);
        let others = [&application.signing_secret, &second];
        let ended = others.into_iter().all(|secret| webhook.verify(secret).is_err());
        (ended && webhook.verify(third.trim()).is_ok()).then_some(())
    });
}
