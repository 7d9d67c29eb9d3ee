//! `urn:job:noop`: does nothing, for as long as asked. For trying callbacks and measuring.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Context, Ending, Handler, Product};
use crate::engine::{Checked, JobType, SourceName};

/// See the module.
pub struct Noop;

const LONGEST_SECONDS: f64 = 3_600.0;

fn duration(specification: &Value) -> Result<f64, String> {
    match specification.get("durationSeconds") {
        None | Some(Value::Null) => Ok(0.0),
        Some(value) => {
            value.as_f64().filter(|seconds| (0.0..=LONGEST_SECONDS).contains(seconds)).ok_or_else(
                || format!("specification.durationSeconds {value} is not allowed: 0 to 3600"),
            )
        }
    }
}

impl JobType for Noop {
    fn name(&self) -> &'static str {
        "urn:job:noop"
    }

    fn check(&self, specification: &Value, sources: &[SourceName]) -> Result<Checked, String> {
        let empty = Map::new();
        let members = match specification {
            Value::Object(members) => members,
            Value::Null => &empty,
            other => return Err(format!("specification {other} is not an object")),
        };
        if let Some(name) = members.keys().find(|name| *name != "durationSeconds") {
            return Err(format!(
                "specification.{name} is not known to urn:job:noop; allowed: durationSeconds"
            ));
        }
        duration(specification)?;
        Ok(Checked {
            specification: Value::Object(members.clone()),
            secrets: Value::Null,
            sources: sources.to_vec(),
            outside_url: None,
        })
    }
}

impl Handler for Noop {
    fn run(self: Arc<Self>, context: Context) -> BoxFuture<'static, Ending> {
        Box::pin(async move {
            let specification: Value =
                serde_json::from_str(context.job.submission.specification.get())
                    .unwrap_or(Value::Null);
            let seconds = duration(&specification).unwrap_or(0.0);
            if seconds > 0.0 {
                let start = tokio::time::Instant::now();
                let end = start + Duration::from_secs_f64(seconds);
                while tokio::time::Instant::now() < end {
                    let step = end.min(tokio::time::Instant::now() + Duration::from_millis(100));
                    tokio::select! {
                        () = context.stop.wait() => return Ending::Stopped,
                        () = tokio::time::sleep_until(step) => {}
                    }
                    context.progress.set((start.elapsed().as_secs_f64() / seconds).min(1.0));
                }
            }
            Ending::Done(Product::of(RawValue::NULL.to_owned()))
        })
    }
}
