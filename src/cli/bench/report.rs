//! The result of a bench, for programs and for people.

use std::fmt::Write;

use serde::Serialize;

/// The figures. Names and shape are what scripts rely on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    pub jobs_per_second: f64,
    pub submit_to_webhook_ms: Percentiles,
    /// To each webhook at an endpoint that answers, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submit_to_endpoints_ms: Option<Percentiles>,
    pub submit_ms: Percentiles,
    pub cpu_ms_per_job: Cpu,
    /// One append of 4 KiB to a file beside the database, or in the temporary folder: the lower
    /// quartile of 101.
    pub fsync_ms: f64,
    /// Operations a commit; null when the server does not say.
    pub commit_batch: Option<f64>,
    /// The server's, before it is asked what came of the jobs and told to stop.
    pub peak_memory_mb: f64,
    pub lost: u32,
    pub duplicates: u32,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Percentiles {
    pub p50: f64,
    pub p99: f64,
}

impl Percentiles {
    /// Of microseconds, in milliseconds.
    pub(super) fn of_micros((p50, p99): (i64, i64)) -> Percentiles {
        Percentiles { p50: rounded(p50 as f64 / 1_000.0), p99: rounded(p99 as f64 / 1_000.0) }
    }
}

/// `database` is 0 where the database is part of the server, null where its processes cannot be
/// seen from here.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Cpu {
    pub server: f64,
    pub database: Option<f64>,
    pub total: Option<f64>,
}

/// What was measured, for the table's head and foot.
pub(super) struct About {
    pub database: String,
    pub jobs: u32,
    pub warm_up: u32,
    pub in_flight: u32,
    pub endpoints: u32,
    pub hanging: u32,
    pub seconds: f64,
    pub audited: i64,
    /// Load generator and sink together, milliseconds a job.
    pub own_cpu: Option<f64>,
}

/// Three decimals: more would be noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

/// A figure that may not be known, for people.
pub(super) fn optional(value: Option<f64>) -> String {
    value.map_or("unknown".to_owned(), |value| format!("{value:.3}"))
}

impl Report {
    /// For people.
    pub(super) fn table(&self, about: &About) -> String {
        let cpu = &self.cpu_ms_per_job;
        let pair =
            |times: &Percentiles| format!("p50 {:.1} ms, p99 {:.1} ms", times.p50, times.p99);
        let mut rows = vec![
            ("jobs a second", format!("{:.0}", self.jobs_per_second)),
            ("submit to webhook", pair(&self.submit_to_webhook_ms)),
            ("submit to 202", pair(&self.submit_ms)),
            ("CPU a job, server", format!("{:.3} ms", cpu.server)),
            ("CPU a job, database", format!("{} ms", optional(cpu.database))),
            ("CPU a job, both", format!("{} ms", optional(cpu.total))),
            ("one fsync", format!("{:.2} ms", self.fsync_ms)),
            ("operations a commit", optional(self.commit_batch)),
            ("server's peak memory", format!("{:.1} MiB", self.peak_memory_mb)),
            ("lost", self.lost.to_string()),
            ("duplicates", self.duplicates.to_string()),
        ];
        if let Some(endpoints) = &self.submit_to_endpoints_ms {
            rows.insert(2, ("submit to endpoints", pair(endpoints)));
        }
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = writeln!(
            text,
            "{} no-op jobs in {:.1} s, {} in flight, after {} to warm up",
            about.jobs, about.seconds, about.in_flight, about.warm_up
        );
        if about.endpoints > 0 {
            let hanging = match about.hanging {
                0 => String::new(),
                hanging => format!(", {hanging} of which hang"),
            };
            let _ = writeln!(text, "to a callback and {} endpoints{hanging}", about.endpoints);
        }
        let _ = writeln!(text, "on {}\n", about.database);
        for (name, value) in rows {
            let _ = writeln!(text, "  {name:<22}{value}");
        }
        let _ = writeln!(
            text,
            "\nevery signature checked; {} jobs audited; load generator and sink beside it: \
             {} ms CPU a job",
            about.audited,
            optional(about.own_cpu)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_that_scripts_rely_on() {
        let mut report = Report {
            jobs_per_second: 1.0,
            submit_to_webhook_ms: Percentiles::of_micros((1_500, 2_000)),
            submit_to_endpoints_ms: None,
            submit_ms: Percentiles::of_micros((500, 600)),
            cpu_ms_per_job: Cpu { server: 0.1, database: Some(0.0), total: Some(0.1) },
            fsync_ms: 0.5,
            commit_batch: Some(2.0),
            peak_memory_mb: 30.0,
            lost: 0,
            duplicates: 0,
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            "{\"jobsPerSecond\":1.0,\"submitToWebhookMs\":{\"p50\":1.5,\"p99\":2.0},\
             \"submitMs\":{\"p50\":0.5,\"p99\":0.6},\
             \"cpuMsPerJob\":{\"server\":0.1,\"database\":0.0,\"total\":0.1},\"fsyncMs\":0.5,\
             \"commitBatch\":2.0,\"peakMemoryMb\":30.0,\"lost\":0,\"duplicates\":0}"
        );
        report.submit_to_endpoints_ms = Some(Percentiles::of_micros((2_500, 3_000)));
        let told = serde_json::to_value(&report).unwrap();
        assert_eq!(told["submitToEndpointsMs"], serde_json::json!({"p50": 2.5, "p99": 3.0}));
    }
}
