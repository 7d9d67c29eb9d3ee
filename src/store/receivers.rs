//! Where webhooks go. Equal callbacks of an application share a row.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Double, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// A receiver.
#[derive(Debug, Clone, QueryableByName)]
pub struct ReceiverRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// callback or endpoint.
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// Of all it holds.
    #[diesel(sql_type = Text)]
    pub digest: String,
    /// scheme://host:port.
    #[diesel(sql_type = Text)]
    pub origin: String,
    /// JSON that representations show.
    #[diesel(sql_type = Text)]
    pub shown: String,
    /// Sealed URL and headers.
    #[diesel(sql_type = Binary)]
    pub sealed: Vec<u8>,
    /// Delivery format.
    #[diesel(sql_type = Text)]
    pub format: String,
    /// JSON array of patterns; null for the default.
    #[diesel(sql_type = Nullable<Text>)]
    pub events: Option<String>,
    /// Where limits and order apply.
    #[diesel(sql_type = BigInt)]
    pub lane: i64,
    /// Deliveries a second.
    #[diesel(sql_type = Nullable<Double>)]
    pub rate_per_second: Option<f64>,
    /// At once.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub rate_burst: Option<i64>,
    /// In flight.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub max_in_flight: Option<i64>,
    /// When made.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// Kept to the day.
    #[diesel(sql_type = BigInt)]
    pub last_used_at: i64,
    /// Since when switched off.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub disabled_at: Option<i64>,
}

const COLUMNS: &str = "id, public_id, application_id, kind, digest, origin, shown, sealed, format, \
                       events, lane, rate_per_second, rate_burst, max_in_flight, created_at, \
                       last_used_at, disabled_at";

/// Inserts a receiver unless an equal one is there.
pub fn insert(connection: &mut Connection, row: &ReceiverRow) -> StoreResult<()> {
    let sql = format!(
        "INSERT INTO receivers ({COLUMNS}, last_sequence) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) \
         ON CONFLICT (application_id, digest) DO NOTHING"
    );
    connection.execute(
        Statement::new(sql)
            .bind(row.id)
            .bind(row.public_id.clone())
            .bind(row.application_id)
            .bind(row.kind.as_str())
            .bind(row.digest.as_str())
            .bind(row.origin.as_str())
            .bind(row.shown.as_str())
            .bind(row.sealed.clone())
            .bind(row.format.as_str())
            .bind(row.events.clone())
            .bind(row.lane)
            .bind(row.rate_per_second)
            .bind(row.rate_burst)
            .bind(row.max_in_flight)
            .bind(row.created_at)
            .bind(row.last_used_at)
            .bind(row.disabled_at),
    )?;
    Ok(())
}

/// The receiver that holds just this.
pub fn find(
    connection: &mut Connection,
    application: Key,
    digest: &str,
) -> StoreResult<Option<ReceiverRow>> {
    let sql = format!("SELECT {COLUMNS} FROM receivers WHERE application_id = ? AND digest = ?");
    connection.first(Statement::new(sql).bind(application).bind(digest))
}

/// Receivers by key.
pub fn load(connection: &mut Connection, keys: &[Key]) -> StoreResult<Vec<ReceiverRow>> {
    connection.load_by_keys(
        "SELECT id, public_id, application_id, kind, digest, origin, shown, sealed, format, \
         events, lane, rate_per_second, rate_burst, max_in_flight, created_at, last_used_at, \
         disabled_at FROM receivers WHERE id @key",
        "",
        keys.iter().map(|key| Cell::from(*key)).collect(),
    )
}

/// Notes the day of use.
pub fn touch(connection: &mut Connection, receiver: Key, at: i64) -> StoreResult<()> {
    let sql = "UPDATE receivers SET last_used_at = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(at).bind(receiver))?;
    Ok(())
}
