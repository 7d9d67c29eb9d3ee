//! `GET /v1/jobs`: filters that combine and repeat, in the order of a date.

use actix_web::http::StatusCode;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::paging::{self, Binding, PAGE_SIZE, PAGE_TOKEN};
use super::parse::is_name;
use super::query::{Query, invalid, not_among, unexpected};
use crate::engine::{Caller, JobQuery, OrderBy, StoredJob};
use crate::files::{DirectoryPath, FilePath};
use crate::ingress::answer;
use crate::ingress::problem::Problem;
use crate::ingress::state::State;
use crate::lifecycle::Status;

const SINGLE: &[&str] = &["orderBy", "order", PAGE_SIZE, PAGE_TOKEN];
const LISTS: &[&str] = &["type", "status", "issuer", "groupId", "fileId", "path"];
const MAX_TYPE_BYTES: usize = 128;
const MAX_ISSUER_BYTES: usize = 200;

/// `GET /v1/jobs`
pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "jobs:read").await?;
    let query = Query::read(&request, SINGLE, LISTS)?;
    let mut wanted = filtered(&query, &caller)?;
    let order = [
        ("orderBy", if wanted.order_by == OrderBy::Updated { "updated" } else { "created" }),
        ("order", if wanted.descending { "desc" } else { "asc" }),
    ];
    let binding = Binding::new(&caller, "jobs", paging::filters(&query, LISTS).chain(order));
    if let Some(position) = paging::position(&state.engine, &binding, &query)? {
        let [date, key] = paging::numbers(&position)?;
        wanted.after = Some((date, key));
    }
    if !is_own(&query, &caller)? {
        // Another's jobs are not shown, so there are none.
        return page(&[], None);
    }
    let (jobs, next) = state.engine.list_jobs(wanted).await?;
    let next = next.map(|(date, key)| paging::written([date, key]));
    page(&jobs, paging::token(&state.engine, &binding, next)?)
}

fn page(jobs: &[StoredJob], token: Option<String>) -> Result<HttpResponse, Problem> {
    let mut json = "{\"jobs\":".to_owned();
    answer::push_jobs(&mut json, jobs);
    json.push_str(",\"nextPageToken\":");
    match token {
        // Base64 needs no escapes.
        Some(token) => json.push_str(&format!("\"{token}\"}}")),
        None => json.push_str("null}"),
    }
    Ok(answer::text(StatusCode::OK, json))
}

fn filtered(query: &Query, caller: &Caller) -> Result<JobQuery, Problem> {
    let mut types = Vec::new();
    for name in query.all("type") {
        let known = name.strip_prefix("urn:job:").is_some_and(is_name);
        if !known || name.len() > MAX_TYPE_BYTES {
            return Err(unexpected("type", name, "a job type such as urn:job:import.file"));
        }
        types.push(name.to_owned());
    }
    let mut statuses = Vec::new();
    for word in query.all("status") {
        let status = Status::parse(word).ok_or_else(|| {
            let known: Vec<_> = Status::ALL.iter().map(|status| status.as_str()).collect();
            not_among("status", word, &known)
        })?;
        statuses.push(status.number());
    }
    let mut paths = Vec::new();
    for path in query.all("path") {
        let parsed = match path.ends_with('/') {
            true => DirectoryPath::parse(path).map(|path| match path.as_str() {
                "/" => "/".to_owned(),
                folder => format!("{folder}/"),
            }),
            false => FilePath::parse(path).map(|path| path.as_str().to_owned()),
        };
        paths.push(parsed.map_err(|error| invalid("path", format!("is refused: {error}")))?);
    }
    let order_by = match query.one("orderBy") {
        None | Some("dateCreated") => OrderBy::Created,
        Some("dateUpdated") => OrderBy::Updated,
        Some(other) => return Err(not_among("orderBy", other, &["dateCreated", "dateUpdated"])),
    };
    let descending = match query.one("order") {
        None | Some("desc") => true,
        Some("asc") => false,
        Some(other) => return Err(not_among("order", other, &["asc", "desc"])),
    };
    Ok(JobQuery {
        application: caller.application,
        types,
        statuses,
        groups: query.ids("groupId")?,
        file_ids: query.ids("fileId")?,
        paths,
        order_by,
        descending,
        after: None,
        limit: paging::size(query)?,
    })
}

/// Whether the issuers that are asked for include the caller; all jobs it may see are its own.
fn is_own(query: &Query, caller: &Caller) -> Result<bool, Problem> {
    let own = caller.issuer();
    let (mut any, mut found) = (false, false);
    for issuer in query.all("issuer") {
        if !is_urn(issuer) {
            return Err(unexpected("issuer", issuer, "a URN such as urn:app:<id>"));
        }
        any = true;
        found |= issuer == own;
    }
    Ok(found || !any)
}

fn is_urn(text: &str) -> bool {
    let parts = text.strip_prefix("urn:").and_then(|rest| rest.split_once(':'));
    parts.is_some_and(|(space, name)| {
        let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        !space.is_empty()
            && space.bytes().all(|b| b.is_ascii_lowercase())
            && !name.is_empty()
            && named
            && text.len() <= MAX_ISSUER_BYTES
    })
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn caller() -> Caller {
        Caller {
            application: 7,
            application_id: uuid::Uuid::nil(),
            credential: 1,
            credential_id: uuid::Uuid::nil(),
            scopes: Vec::new(),
            expires_at: None,
            rate_per_second: None,
            rate_burst: None,
            barred: None,
        }
    }

    fn query(text: &str) -> Query {
        let request = TestRequest::with_uri(&format!("/v1/jobs?{text}")).to_http_request();
        Query::read(&request, SINGLE, LISTS).unwrap()
    }

    #[test]
    fn filters_are_read() {
        let text = "type=urn:job:noop&status=success&status=error&path=/a//b/&path=/c&path=//\
                    &orderBy=dateUpdated&order=asc&pageSize=100";
        let wanted = filtered(&query(text), &caller()).unwrap();
        assert_eq!((wanted.application, wanted.limit), (7, 100));
        assert_eq!((wanted.order_by, wanted.descending), (OrderBy::Updated, false));
        assert_eq!(wanted.statuses, [Status::Success.number(), Status::Error.number()]);
        assert_eq!(wanted.paths, ["/a/b/", "/c", "/"]);
        let plain = filtered(&query(""), &caller()).unwrap();
        assert_eq!((plain.limit, plain.order_by, plain.descending), (20, OrderBy::Created, true));
    }

    #[test]
    fn filters_are_checked() {
        for bad in [
            "type=noop",
            "type=urn:job:",
            "type=urn:job:%20",
            "status=done",
            "status=",
            "path=a",
            "path=/a/../b",
            "groupId=1",
            "fileId=x",
            "orderBy=id",
            "order=up",
            "pageSize=0",
            "pageSize=101",
        ] {
            assert!(filtered(&query(bad), &caller()).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_issuer_is_the_caller_or_nobody() {
        let own = caller().issuer();
        let is_own = |text: &str| is_own(&query(text), &caller()).ok();
        assert_eq!(is_own(""), Some(true));
        assert_eq!(is_own(&format!("issuer={own}")), Some(true));
        assert_eq!(is_own("issuer=urn:app:other"), Some(false));
        assert_eq!(is_own(&format!("issuer=urn:app:other&issuer={own}")), Some(true));
        for bad in ["issuer=app", "issuer=urn:app:", "issuer=urn::a", "issuer=urn:app:a%20b"] {
            assert_eq!(is_own(bad), None, "{bad}");
        }
    }
}
