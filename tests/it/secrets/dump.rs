//! All that a database and a folder hold, as text to be searched.

use std::fs;
use std::path::{Path, PathBuf};

use diesel::QueryableByName;
use diesel::sql_types::Text;
use ringback::store::Statement;

use crate::support::database::{Backend, Database};

/// Every file below a folder.
pub(super) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// Every row of every table as text, binary columns as hex.
pub(super) fn rows_of_all_tables(database: &Database) -> Vec<String> {
    let mut connection = database.connect();
    let mut lines = |sql: &str| -> Vec<String> {
        let found = connection.load::<Line>(Statement::new(sql.to_owned())).expect("SQL of ours");
        found.into_iter().map(|row| row.line).collect()
    };
    let tables = match database.backend() {
        Backend::Sqlite => "SELECT name AS line FROM sqlite_schema WHERE type = 'table'",
        Backend::Postgres => {
            "SELECT tablename::text AS line FROM pg_tables WHERE schemaname = 'public'"
        }
    };
    let mut rows = Vec::new();
    for table in lines(tables) {
        let row = match database.backend() {
            Backend::Sqlite => {
                let columns = format!("SELECT name AS line FROM pragma_table_info('{table}')");
                let quoted: Vec<String> =
                    lines(&columns).iter().map(|name| format!("quote(\"{name}\")")).collect();
                quoted.join(" || ' ' || ")
            }
            Backend::Postgres => "t::text".to_owned(),
        };
        let found = lines(&format!("SELECT {row} AS line FROM \"{table}\" t"));
        rows.extend(found.into_iter().map(|row| format!("of {table}: {row}")));
    }
    rows
}
