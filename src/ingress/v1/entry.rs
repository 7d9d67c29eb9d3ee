//! How most requests begin: the caller is let in, what nobody knows is refused, and the path says
//! what it is about.

use std::sync::Arc;

use actix_web::HttpRequest;
use uuid::Uuid;

use super::query::{Query, path_id};
use crate::engine::Caller;
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
