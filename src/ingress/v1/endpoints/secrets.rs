//! What an endpoint's deliveries are signed with: list, add, rotate, revoke, public keys.

use actix_web::http::StatusCode;
use actix_web::web::{Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

use super::{ID, ShownKey, settings, unstored};
use crate::engine::{NewSecret, PublicKeyView, SecretView};
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::ingress::v1::entry;
use crate::ingress::v1::parse;
use crate::ingress::v1::query::path_id;
use crate::ingress::{answer, body};

/// How long the others go on signing after a rotation that says nothing of it.
const OVERLAP_SECONDS: i64 = 24 * 60 * 60;
const MAX_OVERLAP_SECONDS: i64 = 7 * 24 * 60 * 60;

#[derive(Serialize)]
struct SecretList {
    secrets: Vec<SecretView>,
}

/// A key as lists show it, with what verifies.
#[derive(Serialize)]
struct Made {
    #[serde(flatten)]
    listed: SecretView,
    #[serde(flatten)]
    key: ShownKey,
}

impl From<NewSecret> for Made {
    fn from(made: NewSecret) -> Made {
        let listed = SecretView {
            id: made.id,
            kind: made.kind,
            date_created: made.date_created,
            date_last_used: None,
            date_expires: None,
            active: true,
        };
        Made { listed, key: made.into() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublicKeys {
    /// Of the newest.
    public_key: Option<String>,
    keys: Vec<PublicKeyView>,
}

/// `GET /v1/endpoints/{endpointId}/secrets`
pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:read", ID).await?;
    let secrets = state.engine.endpoint_secrets(&caller, id).await?;
    answer::json(StatusCode::OK, &SecretList { secrets })
}

/// `POST /v1/endpoints/{endpointId}/secrets`
pub async fn add(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let object = parse::optional(&body, &["secret"])?;
    let given = object.as_ref().map(settings::secret).transpose()?.flatten();
    let made = state.engine.add_endpoint_secret(&caller, id, given, None).await?;
    answer::json(StatusCode::CREATED, &Made::from(made)).map(unstored)
}

/// `POST /v1/endpoints/{endpointId}/secrets/rotate`
pub async fn rotate(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    let body = body::json(&request, payload, state.settings.max_body_bytes).await?;
    let object = parse::optional(&body, &["overlapSeconds", "secret"])?;
    let (given, overlap) = match &object {
        Some(object) => {
            let overlap = object.integer("overlapSeconds", 0, MAX_OVERLAP_SECONDS)?;
            (settings::secret(object)?, overlap)
        }
        None => (None, None),
    };
    let overlap = Some(overlap.unwrap_or(OVERLAP_SECONDS));
    let made = state.engine.add_endpoint_secret(&caller, id, given, overlap).await?;
    answer::json(StatusCode::CREATED, &Made::from(made)).map(unstored)
}

/// `DELETE /v1/endpoints/{endpointId}/secrets/{secretId}`
pub async fn revoke(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:write", ID).await?;
    let secret = path_id(&request, "secretId")?;
    state.engine.revoke_endpoint_secret(&caller, id, secret).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET /v1/endpoints/{endpointId}/public-key`
pub async fn public(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let (caller, id) = entry::about(&state, &request, "deliveries:read", ID).await?;
    let keys = state.engine.public_keys(&caller, id).await?;
    let public_key = keys.first().map(|newest| newest.public_key.clone());
    answer::json(StatusCode::OK, &PublicKeys { public_key, keys })
}
