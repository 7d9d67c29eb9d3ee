//! The statement that copies rows of one table, with what is another one's in each copy: keys, ids
//! and times, in columns and in the texts that name them.
//!
//! What a receiver said of itself, such as its `date`, stays as it was.

use diesel::QueryableByName;
use diesel::sql_types::Text;

use super::{Lot, Pattern};
use crate::store::connection::Connection;
use crate::store::error::StoreResult;
use crate::store::location::Backend;
use crate::store::statement::Statement;

/// Columns that hold times.
const TIMES: [&str; 8] = [
    "created_at",
    "updated_at",
    "started_at",
    "completed_at",
    "finished_at",
    "asked_at",
    "run_at",
    "at",
];

/// Which copies, and where their keys lie.
pub(super) struct Copying<'a> {
    pub lot: Lot,
    pub pattern: &'a Pattern,
    /// What is added to a key of the pattern for the first copy, and for each further one.
    pub shift: i64,
    pub each: i64,
}

#[derive(QueryableByName)]
struct Name {
    #[diesel(sql_type = Text)]
    name: String,
}

impl Copying<'_> {
    /// For the rows of a table, which the column `key` names.
    pub(super) fn statement(
        &self,
        connection: &mut Connection,
        table: &str,
        key: &str,
    ) -> StoreResult<String> {
        let backend = connection.backend();
        let sql = match backend {
            Backend::Sqlite => "SELECT name FROM pragma_table_info(?)",
            Backend::Postgres => {
                "SELECT column_name::text AS name FROM information_schema.columns \
                 WHERE table_schema = current_schema() AND table_name = ? ORDER BY ordinal_position"
            }
        };
        let columns: Vec<Name> = connection.load(Statement::new(sql).bind(table))?;
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let values: Vec<String> =
            names.iter().map(|name| self.value(backend, table, name)).collect();
        let joins = match table {
            "events" => "JOIN jobs j ON j.id = t.subject_id",
            "bodies" | "deliveries" => {
                "JOIN events e ON e.subject_id = t.subject_id AND e.sequence = t.sequence \
                 JOIN jobs j ON j.id = t.subject_id"
            }
            _ => "",
        };
        Ok(format!(
            "INSERT INTO {table} ({}) WITH RECURSIVE numbers (n) AS (SELECT CAST(0 AS BIGINT) \
             UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < {}) \
             SELECT {} FROM numbers CROSS JOIN {table} t {joins} \
             WHERE t.{key} BETWEEN {} AND {} ORDER BY n, t.{key}",
            names.join(", "),
            self.lot.copies,
            values.join(", "),
            self.pattern.first,
            self.pattern.last
        ))
    }

    fn value(&self, backend: Backend, table: &str, column: &str) -> String {
        match (table, column) {
            (_, "id" | "subject_id" | "delivery_id") => {
                format!("t.{column} + n * {} + {}", self.each, self.shift)
            }
            ("events", "public_id") => self.id(backend, "t.public_id", "t.at"),
            ("deliveries", "event_id") => self.id(backend, "t.event_id", "e.at"),
            (_, "public_id") => self.id(backend, "t.public_id", "t.created_at"),
            ("deliveries", "request_id") => self.request(backend, "t.request_id"),
            // No other event names anything of these.
            ("events", "data") => {
                format!("CASE t.sequence WHEN 1 THEN {} ELSE t.data END", self.data(backend))
            }
            ("bodies", "body") => self.body(backend),
            _ if TIMES.contains(&column) => self.moved(&format!("t.{column}")),
            _ => format!("t.{column}"),
        }
    }

    /// What a job's first event tells.
    fn data(&self, backend: Backend) -> String {
        let request = match backend {
            Backend::Sqlite => "COALESCE(t.data ->> '$.requestId', '')",
            Backend::Postgres => "COALESCE(t.data::json ->> 'requestId', '')",
        };
        let data = self.with_run_at(backend, "t.data");
        let data = self.with_time(backend, &data, "j.created_at");
        let data = self.with_id(backend, &data, "j.public_id", "j.created_at");
        format!("replace({data}, {request}, {})", self.request(backend, request))
    }

    /// A body tells an event and its job.
    fn body(&self, backend: Backend) -> String {
        let body = self.with_run_at(backend, "t.body");
        let body = ["j.created_at", "j.started_at", "e.at"]
            .iter()
            .fold(body, |body, time| self.with_time(backend, &body, time));
        let body = self.with_id(backend, &body, "e.public_id", "e.at");
        self.with_id(backend, &body, "j.public_id", "j.created_at")
    }

    fn with_id(&self, backend: Backend, text: &str, id: &str, time: &str) -> String {
        let old = shown_id(backend, id);
        let new = format!("{} || substr({old}, 14)", self.shown_beginning(backend, time));
        format!("replace({text}, {old}, {new})")
    }

    /// All times of a copy are before all of its pattern, so none is taken for another one.
    fn with_time(&self, backend: Backend, text: &str, time: &str) -> String {
        let (old, new) = (shown_time(backend, time), shown_time(backend, &self.moved(time)));
        format!("replace({text}, COALESCE({old}, ''), COALESCE({new}, ''))")
    }

    /// Most jobs were to run when they were made.
    fn with_run_at(&self, backend: Backend, text: &str) -> String {
        let changed = self.with_time(backend, text, "j.run_at");
        format!("CASE WHEN j.run_at = j.created_at THEN {text} ELSE {changed} END")
    }

    fn moved(&self, time: &str) -> String {
        format!("({time} + (n + {}) * {})", self.lot.made - self.lot.total, self.pattern.length)
    }

    /// Milliseconds, with which ids of that time begin.
    fn millis(&self, time: &str) -> String {
        format!("({} / 1000)", self.moved(time))
    }

    /// An id of the copy's time, which no other copy has; the rest of it stays, since ids of one
    /// millisecond differ in nothing else.
    fn id(&self, backend: Backend, old: &str, time: &str) -> String {
        let millis = self.millis(time);
        match backend {
            Backend::Sqlite => {
                format!("unhex(printf('%012x', {millis}) || substr(hex({old}), 13, 20))")
            }
            Backend::Postgres => format!(
                "decode(lpad(to_hex({millis}), 12, '0') || substr(encode({old}, 'hex'), 13, 20), \
                 'hex')"
            ),
        }
    }

    /// The same of a request that made a job, which is text; one that its sender named keeps its
    /// name.
    fn request(&self, backend: Backend, old: &str) -> String {
        let beginning = self.shown_beginning(backend, "j.created_at");
        format!("CASE length({old}) WHEN 36 THEN {beginning} || substr({old}, 14) ELSE {old} END")
    }

    /// The first 13 characters of an id of the copy's time.
    fn shown_beginning(&self, backend: Backend, time: &str) -> String {
        let millis = self.millis(time);
        match backend {
            Backend::Sqlite => {
                format!("printf('%08x-%04x', {millis} >> 16, {millis} & 65535)")
            }
            Backend::Postgres => format!(
                "lpad(to_hex({millis} >> 16), 8, '0') || '-' \
                 || lpad(to_hex({millis} & 65535), 4, '0')"
            ),
        }
    }
}

/// An id as text.
fn shown_id(backend: Backend, id: &str) -> String {
    match backend {
        Backend::Sqlite => {
            let digits = format!("lower(hex({id}))");
            let parts = [(1, 8), (9, 4), (13, 4), (17, 4), (21, 12)]
                .map(|(from, length)| format!("substr({digits}, {from}, {length})"));
            format!("({})", parts.join(" || '-' || "))
        }
        Backend::Postgres => format!("(encode({id}, 'hex')::uuid::text)"),
    }
}

/// A time as text, as [`crate::ids::Timestamp`] is shown.
fn shown_time(backend: Backend, time: &str) -> String {
    match backend {
        Backend::Sqlite => {
            format!("strftime('%Y-%m-%dT%H:%M:%fZ', {time} / 1000000.0, 'unixepoch')")
        }
        Backend::Postgres => format!(
            "to_char(to_timestamp({time} / 1000000.0) AT TIME ZONE 'UTC', \
             'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
        ),
    }
}
