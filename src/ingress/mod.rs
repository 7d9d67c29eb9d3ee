//! HTTP in: who may ask, how fast, and what each route answers.
//!
//! A handler reads the request, makes one call on the engine and writes the answer. Must not know
//! handlers of jobs, deliveries, the store or formats; a face is a folder beside `v1`.

mod answer;
pub mod auth;
mod body;
mod causes;
pub mod health;
pub mod limits;
mod observe;
pub mod openapi;
mod percent;
pub mod problem;
mod readiness;
mod state;
mod streams;
pub mod v1;

use std::future::ready;

use actix_web::web::{self, delete, get, head, patch, post, put};
use actix_web::{HttpRequest, HttpResponse, Resource};

pub use observe::{observe, request_id};
pub use readiness::Readiness;
pub use state::{Settings, State};

use problem::{Code, Problem};
use v1::endpoints::{self, control, replay, secrets};
use v1::{batch, deliveries, events, feed, files, groups, jobs};

/// All routes. [`observe()`] goes around them, and [`State`] into the application's data.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/v1/jobs", "GET, POST")
                .route(post().to(jobs::submit))
                .route(get().to(jobs::list)),
        )
        .service(resource("/v1/jobs/batch", "POST").route(post().to(batch::submit)))
        .service(
            resource("/v1/jobs/{jobId}", "GET, DELETE")
                .route(get().to(jobs::read))
                .route(delete().to(jobs::trash)),
        )
        .service(resource("/v1/jobs/{jobId}/events", "GET").route(get().to(events::list)))
        .service(resource("/v1/jobs/{jobId}/stop", "POST").route(post().to(jobs::stop)))
        .service(resource("/v1/jobs/{jobId}/retry", "POST").route(post().to(jobs::retry)))
        .service(resource("/v1/groups", "POST").route(post().to(groups::create)))
        .service(resource("/v1/groups/{groupId}", "GET").route(get().to(groups::read)))
        .service(resource("/v1/groups/{groupId}/close", "POST").route(post().to(groups::close)))
        .service(resource("/v1/groups/{groupId}/stop", "POST").route(post().to(groups::stop)))
        .service(resource("/v1/files", "GET").route(get().to(files::list)))
        .service(
            resource("/v1/files/{path:.*}", "PUT, GET, HEAD, DELETE")
                .route(put().to(files::upload))
                .route(get().to(files::download))
                .route(head().to(files::download))
                .route(delete().to(files::remove)),
        )
        .service(resource("/v1/deliveries", "GET").route(get().to(deliveries::list)))
        .service(
            resource("/v1/deliveries/redeliver", "POST")
                .route(post().to(deliveries::bulk::redeliver)),
        )
        .service(resource("/v1/deliveries/{deliveryId}", "GET").route(get().to(deliveries::read)))
        .service(
            resource("/v1/deliveries/{deliveryId}/redeliver", "POST")
                .route(post().to(deliveries::redeliver)),
        )
        .service(
            resource("/v1/deliveries/{deliveryId}/skip", "POST").route(post().to(deliveries::skip)),
        )
        .configure(endpoint_routes)
        .service(resource("/v1/events", "GET").route(get().to(feed::list)))
        .service(resource("/v1/events/stream", "GET").route(get().to(feed::stream)))
        .service(resource("/v1/events/trigger", "POST").route(post().to(feed::trigger)))
        .service(
            resource("/healthz", "GET, HEAD")
                .route(get().to(health::alive))
                .route(head().to(health::alive)),
        )
        .service(
            resource("/readyz", "GET, HEAD")
                .route(get().to(health::ready))
                .route(head().to(health::ready)),
        )
        .service(
            resource("/metrics", "GET, HEAD")
                .route(get().to(health::metrics))
                .route(head().to(health::metrics)),
        )
        .service(resource("/openapi.json", "GET").route(get().to(openapi::serve::document)))
        .service(resource("/docs", "GET").route(get().to(openapi::serve::page)))
        .default_service(web::to(unmatched));
}

fn endpoint_routes(config: &mut web::ServiceConfig) {
    config
        .service(
            resource("/v1/endpoints", "GET, POST")
                .route(get().to(endpoints::list))
                .route(post().to(endpoints::create)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}", "GET, PATCH, DELETE")
                .route(get().to(endpoints::read))
                .route(patch().to(endpoints::change))
                .route(delete().to(endpoints::remove)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/secrets", "GET, POST")
                .route(get().to(secrets::list))
                .route(post().to(secrets::add)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/secrets/rotate", "POST")
                .route(post().to(secrets::rotate)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/secrets/{secretId}", "DELETE")
                .route(delete().to(secrets::revoke)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/public-key", "GET")
                .route(get().to(secrets::public)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/ping", "POST").route(post().to(control::ping)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/disable", "POST")
                .route(post().to(control::disable)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/enable", "POST").route(post().to(control::enable)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/stats", "GET").route(get().to(control::stats)),
        )
        .service(
            resource("/v1/endpoints/{endpointId}/replay", "POST").route(post().to(replay::replay)),
        );
}

/// A path that answers other methods than `allowed` with a 405.
fn resource(path: &str, allowed: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move |request: HttpRequest| {
        let method: String = request.method().as_str().chars().take(32).collect();
        let detail = format!("{method} is not allowed here; allowed: {allowed}");
        let problem = Problem::new(Code::MethodNotAllowed, detail).with_header("Allow", allowed);
        ready(Err::<HttpResponse, Problem>(problem))
    }))
}

async fn unmatched() -> Result<HttpResponse, Problem> {
    let detail = "nothing is at this path; /openapi.json lists what there is";
    Err(Problem::new(Code::NotFound, detail))
}
