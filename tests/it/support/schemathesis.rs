//! Schemathesis against a running server: does it keep to its own OpenAPI document?
//!
//! What is checked and how is in `tests/schemathesis/`; this only runs it.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::machine::{self, environment};
use super::process::{Application, Server};

/// All phases over all operations; it ends by itself long before.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs all checks and panics with schemathesis' report if one fails; gives the report otherwise.
///
/// `seeds` are things that exist, by the name of the parameter that takes them: `jobId`, `groupId`,
/// `deliveryId`, `fileId`, `path` … Each is a list of two or more: the last one may be deleted,
/// unless there is a list such as `DELETE endpointId` for that.
#[track_caller]
pub fn check(server: &Server, application: &Application, seeds: &Value) -> String {
    for (name, values) in seeds.as_object().expect("seeds by name") {
        let values = values.as_array().expect("a list of seeds");
        let usable = values.len() > 1 && values.iter().all(Value::is_string);
        assert!(usable, "seeds of {name} would find nothing: {values:?}");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/schemathesis/run.sh");
    let mut command = machine::clean_command("bash");
    command
        .arg(script)
        .env("RINGBACK_URL", server.base_url())
        .env("RINGBACK_API_KEY", &application.api_key)
        .env("RINGBACK_SEEDS", seeds.to_string())
        .env("RINGBACK_SCHEMATHESIS", environment("RINGBACK_TEST_SCHEMATHESIS"));
    machine::finish(&mut command, PATIENCE).success().stdout
}
