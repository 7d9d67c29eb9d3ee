//! The document and its page over HTTP. Both are made once.

use std::sync::OnceLock;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use actix_web::web::Data;

use super::docs;
use crate::ingress::answer;
use crate::ingress::state::State;

/// Texts that never change while a server runs.
#[derive(Default)]
pub struct Texts {
    document: OnceLock<String>,
    page: OnceLock<String>,
}

/// `GET /openapi.json`
pub async fn document(state: Data<State>) -> HttpResponse {
    let make = || super::document(&state.settings.public_url);
    answer::text(StatusCode::OK, state.texts.document.get_or_init(make).clone())
}

/// `GET /docs`
pub async fn page(state: Data<State>) -> HttpResponse {
    let make = || docs::page(&state.settings.public_url);
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, docs::CONTENT_SECURITY_POLICY))
        .body(state.texts.page.get_or_init(make).clone())
}
