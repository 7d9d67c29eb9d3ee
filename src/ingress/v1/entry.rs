//! How most requests begin: the caller is let in, what nobody knows is refused, and the path says
//! what it is about.

use std::sync::Arc;

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Payload};
use uuid::Uuid;

use super::parse;
use super::query::{Query, path_id};
use crate::engine::Caller;
use crate::ingress::body;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;

/// Who calls, without parameters.
pub async fn plain(
    state: &State,
    request: &HttpRequest,
    scope: &'static str,
) -> Result<Arc<Caller>, Problem> {
    let caller = state.admit(request, scope).await?;
    Query::none(request)?;
    Ok(caller)
}

/// Who calls, without parameters, and the id of that name in the path.
pub async fn about(
    state: &State,
    request: &HttpRequest,
    scope: &'static str,
    name: &'static str,
) -> Result<(Arc<Caller>, Uuid), Problem> {
    let caller = plain(state, request, scope).await?;
    Ok((caller, path_id(request, name)?))
}

/// The body of a request that has nothing to say: none, or an object without members.
pub async fn no_body(
    state: &State,
    request: &HttpRequest,
    payload: Payload,
) -> Result<Bytes, Problem> {
    let body = body::json(request, payload, state.settings.max_body_bytes).await?;
    parse::optional(&body, &[])?;
    Ok(body)
}
