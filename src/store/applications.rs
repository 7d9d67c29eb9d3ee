//! Who may call, and how they prove it.

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Binary, Nullable, Text};

use super::connection::Connection;
use super::error::StoreResult;
use super::statement::{Cell, Statement};
use crate::ids::Key;

/// Kinds of credential.
pub mod kind {
    /// Presented as a bearer token.
    pub const API_KEY: &str = "api_key";
    /// Signs webhooks to callbacks.
    pub const SIGNING_SECRET: &str = "signing_secret";
    /// Signs webhooks to one endpoint.
    pub const ENDPOINT_SECRET: &str = "endpoint_secret";
    /// Signs webhooks to one endpoint, whose receiver knows the public half.
    pub const ENDPOINT_KEY: &str = "endpoint_key";
}

/// An application.
#[derive(Debug, Clone, QueryableByName)]
pub struct ApplicationRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// For people.
    #[diesel(sql_type = Text)]
    pub name: String,
    /// Requests a second; null for the default.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub rate_per_second: Option<i64>,
    /// At once; null for the default.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub rate_burst: Option<i64>,
    /// When made.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// Since when switched off.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub disabled_at: Option<i64>,
}

const APPLICATION: &str =
    "id, public_id, name, rate_per_second, rate_burst, created_at, disabled_at";

/// Inserts an application.
pub fn insert(connection: &mut Connection, row: &ApplicationRow) -> StoreResult<()> {
    let sql = format!("INSERT INTO applications ({APPLICATION}) VALUES (?, ?, ?, ?, ?, ?, ?)");
    connection.execute(
        Statement::new(sql)
            .bind(row.id)
            .bind(row.public_id.clone())
            .bind(row.name.as_str())
            .bind(row.rate_per_second)
            .bind(row.rate_burst)
            .bind(row.created_at)
            .bind(row.disabled_at),
    )?;
    Ok(())
}

/// All applications, oldest first.
pub fn list(connection: &mut Connection) -> StoreResult<Vec<ApplicationRow>> {
    let sql = format!("SELECT {APPLICATION} FROM applications ORDER BY id");
    connection.load(Statement::new(sql))
}

/// One by its id outside.
pub fn find(connection: &mut Connection, id: uuid::Uuid) -> StoreResult<Option<ApplicationRow>> {
    let sql = format!("SELECT {APPLICATION} FROM applications WHERE public_id = ?");
    connection.first(Statement::new(sql).bind(id))
}

/// Those of a name.
pub fn named(connection: &mut Connection, name: &str) -> StoreResult<Vec<ApplicationRow>> {
    let sql = format!("SELECT {APPLICATION} FROM applications WHERE name = ? ORDER BY id");
    connection.load(Statement::new(sql).bind(name))
}

/// Switches an application off or on.
pub fn set_disabled(connection: &mut Connection, id: Key, at: Option<i64>) -> StoreResult<()> {
    let sql = "UPDATE applications SET disabled_at = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(at).bind(id))?;
    Ok(())
}

/// Sets an application's own request rate; null for the default.
pub fn set_rate(
    connection: &mut Connection,
    id: Key,
    per_second: Option<i64>,
    burst: Option<i64>,
) -> StoreResult<()> {
    let sql = "UPDATE applications SET rate_per_second = ?, rate_burst = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(per_second).bind(burst).bind(id))?;
    Ok(())
}

/// The stamp that tells whether what is remembered of an application's endpoints still holds.
pub fn version(connection: &mut Connection, application: Key) -> StoreResult<i64> {
    #[derive(QueryableByName)]
    struct Version {
        #[diesel(sql_type = BigInt)]
        version: i64,
    }
    let sql = "SELECT version FROM applications WHERE id = ?";
    let rows: Vec<Version> =
        connection.load_of("applications", Statement::new(sql).bind(application))?;
    Ok(rows.first().map_or(0, |row| row.version))
}

/// Says that endpoints or signing secrets of an application have changed.
pub fn stamp(connection: &mut Connection, application: Key, version: i64) -> StoreResult<()> {
    let sql = "UPDATE applications SET version = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(version).bind(application))?;
    Ok(())
}

/// Holds an application for this transaction. Written and not selected for update, since that would
/// hold up whoever appends something of the application.
pub fn hold(connection: &mut Connection, application: Key) -> StoreResult<()> {
    let sql = "UPDATE applications SET version = version WHERE id = ?";
    connection.execute(Statement::new(sql).bind(application))?;
    Ok(())
}

/// A credential.
#[derive(Debug, Clone, QueryableByName)]
pub struct CredentialRow {
    /// Key.
    #[diesel(sql_type = BigInt)]
    pub id: i64,
    /// Id outside.
    #[diesel(sql_type = Binary)]
    pub public_id: Vec<u8>,
    /// Owner.
    #[diesel(sql_type = BigInt)]
    pub application_id: i64,
    /// See [`kind`].
    #[diesel(sql_type = Text)]
    pub kind: String,
    /// SHA-256 of an API key, hex.
    #[diesel(sql_type = Nullable<Text>)]
    pub lookup: Option<String>,
    /// Sealed signing secret.
    #[diesel(sql_type = Nullable<Binary>)]
    pub sealed: Option<Vec<u8>>,
    /// Comma-separated.
    #[diesel(sql_type = Text)]
    pub scopes: String,
    /// When made.
    #[diesel(sql_type = BigInt)]
    pub created_at: i64,
    /// Kept to the minute.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub last_used_at: Option<i64>,
    /// Works until.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub expires_at: Option<i64>,
    /// Since when it does not work.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub revoked_at: Option<i64>,
}

const CREDENTIAL: &str = "id, public_id, application_id, kind, lookup, sealed, scopes, \
                          created_at, last_used_at, expires_at, revoked_at";

/// Inserts a credential.
pub fn insert_credential(connection: &mut Connection, row: &CredentialRow) -> StoreResult<()> {
    let sql =
        format!("INSERT INTO credentials ({CREDENTIAL}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    connection.execute(
        Statement::new(sql)
            .bind(row.id)
            .bind(row.public_id.clone())
            .bind(row.application_id)
            .bind(row.kind.as_str())
            .bind(row.lookup.clone())
            .bind(row.sealed.clone())
            .bind(row.scopes.as_str())
            .bind(row.created_at)
            .bind(row.last_used_at)
            .bind(row.expires_at)
            .bind(row.revoked_at),
    )?;
    Ok(())
}

/// A credential by the hash of its key.
pub fn find_credential(
    connection: &mut Connection,
    lookup: &str,
) -> StoreResult<Option<CredentialRow>> {
    let sql = format!("SELECT {CREDENTIAL} FROM credentials WHERE lookup = ?");
    connection.first(Statement::new(sql).bind(lookup))
}

/// An application by key.
pub fn get(connection: &mut Connection, id: Key) -> StoreResult<Option<ApplicationRow>> {
    let sql = format!("SELECT {APPLICATION} FROM applications WHERE id = ?");
    connection.first(Statement::new(sql).bind(id))
}

/// Credentials of an application and kind, newest first.
pub fn credentials(
    connection: &mut Connection,
    application: Key,
    kind: &str,
) -> StoreResult<Vec<CredentialRow>> {
    let sql = format!(
        "SELECT {CREDENTIAL} FROM credentials WHERE application_id = ? AND kind = ? \
         ORDER BY created_at DESC, id DESC"
    );
    connection.load(Statement::new(sql).bind(application).bind(kind))
}

/// Makes credentials end at a time, unless they end sooner.
pub fn expire_credentials(connection: &mut Connection, ids: &[Key], at: i64) -> StoreResult<()> {
    for id in ids {
        let sql = "UPDATE credentials SET expires_at = ? \
                   WHERE id = ? AND (expires_at IS NULL OR expires_at > ?)";
        connection.execute(Statement::new(sql).bind(at).bind(*id).bind(at))?;
    }
    Ok(())
}

/// Ends a credential of an endpoint, or of the application itself, at once, for good; whether there
/// was one that still worked.
pub fn revoke_credential(
    connection: &mut Connection,
    application: Key,
    endpoint: Option<Key>,
    id: uuid::Uuid,
    at: i64,
) -> StoreResult<bool> {
    let sql = "UPDATE credentials SET revoked_at = ? \
               WHERE application_id = ? AND receiver_id IS NOT DISTINCT FROM ? AND public_id = ? \
               AND revoked_at IS NULL";
    let statement = Statement::new(sql).bind(at).bind(application).bind(endpoint).bind(id);
    Ok(connection.execute(statement)? == 1)
}

/// Removes credentials that have ended.
pub fn delete_credentials(connection: &mut Connection, ids: &[Key]) -> StoreResult<()> {
    for id in ids {
        let sql = "DELETE FROM credentials WHERE id = ?";
        connection.execute(Statement::new(sql).bind(*id))?;
    }
    Ok(())
}

/// Notes uses: `(credential, when)`.
pub fn touch_credentials(connection: &mut Connection, used: &[(Key, i64)]) -> StoreResult<()> {
    for (id, at) in used {
        let cells = vec![Cell::from(*at), Cell::from(*id)];
        let sql = "UPDATE credentials SET last_used_at = ? WHERE id = ?";
        connection.execute(Statement::with(sql, cells))?;
    }
    Ok(())
}

/// A credential of one endpoint.
pub fn insert_endpoint_credential(
    connection: &mut Connection,
    receiver: Key,
    row: &CredentialRow,
) -> StoreResult<()> {
    insert_credential(connection, row)?;
    let sql = "UPDATE credentials SET receiver_id = ? WHERE id = ?";
    connection.execute(Statement::new(sql).bind(receiver).bind(row.id))?;
    Ok(())
}

/// Credentials of an endpoint, newest first.
pub fn endpoint_credentials(
    connection: &mut Connection,
    receiver: Key,
) -> StoreResult<Vec<CredentialRow>> {
    let sql = format!(
        "SELECT {CREDENTIAL} FROM credentials WHERE receiver_id = ? \
         ORDER BY created_at DESC, id DESC"
    );
    connection.load(Statement::new(sql).bind(receiver))
}
