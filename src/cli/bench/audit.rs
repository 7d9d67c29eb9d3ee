//! What is there afterwards: the database says it of all jobs, and the server of some. Each must have
//! its whole history.

use serde_json::Value;
use uuid::Uuid;

use crate::cli::api::Api;
use crate::store::history::{self, Tally, Whole};
use crate::store::{Connection, Location, StoreResult};

/// So many jobs that are alike.
pub(super) struct Alike {
    pub jobs: i64,
    pub each: Whole,
}

/// What is stored of jobs beside what must be, all kinds of them together.
struct Stored {
    must: Tally,
    is: Tally,
}

/// How many jobs are stored, and what is wrong with them. Of webhooks that came again there is more
/// than one attempt, so as many jobs as that are forgiven for having more than they must.
pub(super) fn faults_of_all(
    location: &Location,
    all: &[Alike],
    duplicates: i64,
) -> StoreResult<(i64, Vec<String>)> {
    let mut connection = Connection::open(location)?;
    let mut stored = Stored { must: Tally::default(), is: Tally::default() };
    for Alike { jobs, each } in all {
        stored.is += history::tally(&mut connection, each)?;
        stored.must += each.of(*jobs);
    }
    Ok((stored.is.jobs, stored.faults(duplicates)))
}

impl Stored {
    fn faults(&self, duplicates: i64) -> Vec<String> {
        let Stored { must, is } = self;
        let mut faults = Vec::new();
        for (what, is, must) in [
            ("jobs are stored", is.jobs, must.jobs),
            ("deliveries are stored", is.deliveries, must.deliveries),
            ("deliveries are delivered", is.delivered, must.delivered),
            ("deliveries have an attempt closed with its HTTP status", is.closed, must.closed),
            ("deliveries are still owed", is.live, must.live),
        ] {
            if is != must {
                faults.push(format!("{is} {what} and not {must}"));
            }
        }
        if is.faulty > duplicates {
            faults.push(format!("{} jobs are not stored with their whole history", is.faulty));
        }
        faults
    }
}

/// A metric by its whole name, summed over its labels.
pub(super) async fn metric(api: &Api, name: &str) -> anyhow::Result<Option<f64>> {
    let body = api.get("/metrics").await?;
    Ok(read_metric(&String::from_utf8_lossy(&body), name))
}

fn read_metric(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let rest = if rest.starts_with('{') { rest.rsplit_once('}')?.1 } else { rest };
        rest.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

/// Deliveries of a job that can be looked at: a page of them.
pub(super) const MOST_DELIVERIES: usize = 100;

/// What is wrong with a job that has so many deliveries, and so many more that wait for receivers
/// who never answer, if anything is.
pub(super) async fn fault(
    api: &Api,
    job: Uuid,
    delivered: usize,
    hanging: usize,
) -> anyhow::Result<Option<String>> {
    let events = api.get_json(&format!("/v1/jobs/{job}/events")).await?;
    let types = strings(&events["events"], "type");
    if types != ["job.created", "job.started", "job.succeeded"] {
        return Ok(Some(format!("job {job} has the events {types:?}")));
    }
    let deliveries = api.get_json(&format!("/v1/deliveries?jobId={job}&pageSize=100")).await?;
    let ids = strings(&deliveries["deliveries"], "id");
    let owed = delivered + hanging;
    if ids.len() != owed {
        return Ok(Some(format!("job {job} has {} deliveries and not {owed}", ids.len())));
    }
    let statuses = strings(&deliveries["deliveries"], "status");
    let waits = |status: &str| hanging > 0 && matches!(status, "pending" | "sending");
    let waiting = statuses.iter().filter(|status| waits(status)).count();
    if waiting != hanging {
        let fault = format!("of job {job} {waiting} deliveries wait and not {hanging}");
        return Ok(Some(fault));
    }
    for (id, _) in ids.iter().zip(&statuses).filter(|(_, status)| !waits(status)) {
        if let Some(fault) = fault_of_delivery(api, id).await? {
            return Ok(Some(fault));
        }
    }
    Ok(None)
}

async fn fault_of_delivery(api: &Api, id: &str) -> anyhow::Result<Option<String>> {
    let delivery = api.get_json(&format!("/v1/deliveries/{id}")).await?;
    let attempts = delivery["attemptLog"].as_array().map_or(&[][..], Vec::as_slice);
    let good = delivery["status"] == "delivered"
        && matches!(attempts, [attempt] if attempt["outcome"] == "delivered"
            && attempt["responseStatus"] == 200 && attempt["finishedAt"].is_string());
    Ok((!good).then(|| {
        let outcomes = strings(&delivery["attemptLog"], "outcome");
        format!("delivery {id} is {} with the attempts {outcomes:?}", delivery["status"])
    }))
}

fn strings(array: &Value, member: &str) -> Vec<String> {
    let items = array.as_array().into_iter().flatten();
    items.filter_map(|item| item[member].as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_its_number() {
        let each = Whole { after: 0, application: None, ended: true, delivered: 2, owed: 1 };
        let whole = || Stored { must: each.of(10), is: each.of(10) };
        assert!(whole().faults(0).is_empty());
        let mut twice = whole();
        twice.is.faulty = 1;
        assert!(twice.faults(1).is_empty());
        assert_eq!(twice.faults(0), ["1 jobs are not stored with their whole history"]);
        let mut less = whole();
        (less.is.deliveries, less.is.live) = (29, 9);
        let told =
            ["29 deliveries are stored and not 30", "9 deliveries are still owed and not 10"];
        assert_eq!(less.faults(0), told);
    }

    #[test]
    fn metrics_are_read_with_and_without_labels() {
        let text =
            "# HELP a_sum x\na_sum 3.5\na_count{b=\"c d\"} 2\na_count{b=\"}\"} 5\na_counts 9\n";
        assert_eq!(super::read_metric(text, "a_sum"), Some(3.5));
        assert_eq!(super::read_metric(text, "a_count"), Some(7.0));
        assert_eq!(super::read_metric(text, "b"), None);
    }
}
