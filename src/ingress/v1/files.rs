//! Files: stored as they stream in, served with ranges and tags.

use actix_web::body::SizedStream;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use actix_web::web::{Bytes, Data, Payload};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use super::entry;
use super::file_view::{Shown, etag, url_path, write_headers};
use super::paging::{self, Binding, PAGE_SIZE, PAGE_TOKEN};
use super::query::{Query, file_path, invalid, not_among};
use super::range::{Part, has_tag, wanted};
use crate::engine::{EngineError, Output};
use crate::files::{BlobError, Staged, media_type};
use crate::ids::new_id;
use crate::ingress::problem::{Code, Problem};
use crate::ingress::state::State;
use crate::ingress::{answer, body};

const MAX_PREFIX_BYTES: usize = 1_024;
/// Chunks between the connection and the disk.
const CHUNKS: usize = 4;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FilePage {
    files: Vec<Shown>,
    next_page_token: Option<String>,
}

/// A write that was meant to hang on a condition must not happen without it.
fn unconditional(request: &HttpRequest) -> Result<(), Problem> {
    for name in ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"] {
        if request.headers().contains_key(name) {
            let text =
                format!("the header {name} is not supported when a file is written or removed");
            return Err(Problem::new(Code::InvalidRequest, text));
        }
    }
    Ok(())
}

/// `PUT /v1/files/{path}`
pub async fn upload(
    request: HttpRequest,
    state: Data<State>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "files:write").await?;
    unconditional(&request)?;
    let query = Query::read(&request, &["acl"], &[])?;
    let acl = match query.one("acl") {
        None | Some("private") => "private",
        Some("public") => "public",
        Some(other) => return Err(not_among("acl", other, &["public", "private"])),
    };
    let path = file_path(&request)?;
    let cap = state.settings.max_file_bytes;
    if body::declared_length(request.headers()).is_some_and(|length| length > cap) {
        return Err(body::too_large(cap));
    }
    let staged = stage(&state, payload, cap).await?;
    let file_id = new_id();
    let declared = header(&request, CONTENT_TYPE);
    let output = Output {
        media_type: media_type(path.as_str(), declared, &staged.head),
        path: path.as_str().to_owned(),
        version: staged.key,
        file_id,
        size: staged.size,
        sha256: staged.sha256_hex,
        acl: acl.to_owned(),
    };
    let file = match state.engine.put_file(&caller, output).await {
        Ok(file) => file,
        Err(error) => {
            // After a failure of the database the bytes may be published all the same; if they are
            // not, they are swept.
            if !matches!(error, EngineError::Store(_)) {
                let _ = state.blobs.delete(staged.key).await;
            }
            return Err(error.into());
        }
    };
    let url = format!("{}{}", state.settings.public_url, url_path(&file.path));
    match file.id == file_id {
        true => Ok(answer::located(answer::json(StatusCode::CREATED, &Shown::from(file))?, url)),
        false => answer::json(StatusCode::OK, &Shown::from(file)),
    }
}

/// Moves chunks from the connection, which belongs to this thread, to the storage.
async fn stage(state: &State, mut payload: Payload, cap: u64) -> Result<Staged, BlobError> {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, std::io::Error>>(CHUNKS);
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|chunk| (chunk, receiver))
    });
    let pump = async move {
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|error| std::io::Error::other(error.to_string()));
            let failed = chunk.is_err();
            // The storage has given up when nobody receives.
            if sender.send(chunk).await.is_err() || failed {
                break;
            }
        }
    };
    let (staged, ()) = futures_util::join!(state.blobs.stage(new_id(), chunks, cap), pump);
    staged
}

/// `GET` and `HEAD /v1/files/{path}`
pub async fn download(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = entry::plain(&state, &request, "files:read").await?;
    let path = file_path(&request)?;
    let file = state.engine.find_file(caller.application, path.as_str()).await?;
    let etag = etag(&file);
    if header(&request, IF_NONE_MATCH).is_some_and(|tags| has_tag(tags, &etag)) {
        return Ok(HttpResponse::NotModified().insert_header((ETAG, etag)).finish());
    }
    let size = u64::try_from(file.size).unwrap_or(0);
    // A date is too weak to join parts by, so only the tag counts.
    let unchanged = header(&request, IF_RANGE).is_none_or(|tag| tag == etag);
    let part = wanted(header(&request, RANGE).filter(|_| unchanged), size);
    let (status, range) = match part {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Bytes(range) => (StatusCode::PARTIAL_CONTENT, range),
        Part::Nothing => {
            let detail = format!("the file has {size} bytes");
            return Err(Problem::new(Code::RangeNotSatisfiable, detail)
                .with_header("Content-Range", format!("bytes */{size}")));
        }
    };
    let mut answer = HttpResponse::build(status);
    write_headers(&mut answer, &file);
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
        answer.insert_header((CONTENT_RANGE, text));
    }
    let length = range.end - range.start;
    if length == 0 || request.method() == actix_web::http::Method::HEAD {
        let nothing = stream::empty::<Result<Bytes, BlobError>>();
        return Ok(answer.body(SizedStream::new(length, nothing)));
    }
    let asked = (status == StatusCode::PARTIAL_CONTENT).then_some(range);
    let opened = state.blobs.open(file.version, asked).await?;
    Ok(answer.body(SizedStream::new(length, opened.stream)))
}

/// `DELETE /v1/files/{path}`
pub async fn remove(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "files:write").await?;
    unconditional(&request)?;
    Query::none(&request)?;
    let path = file_path(&request)?;
    state.engine.delete_file(&caller, path.as_str().to_owned()).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET /v1/files`
pub async fn list(request: HttpRequest, state: Data<State>) -> Result<HttpResponse, Problem> {
    let caller = state.admit(&request, "files:read").await?;
    let query = Query::read(&request, &["prefix", PAGE_SIZE, PAGE_TOKEN], &[])?;
    let prefix = prefix(&query)?;
    let limit = paging::size(&query)?;
    let binding = Binding::new(&caller, "files", [("prefix", &*prefix)]);
    let after = match paging::position(&state.engine, &binding, &query)? {
        Some(position) => String::from_utf8(position).map_err(|_| paging::refused())?,
        None => String::new(),
    };
    // One more than wanted tells whether there is a next page.
    let asked = i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1);
    let mut files = state.engine.list_files(&caller, prefix, after, asked).await?;
    let more = files.len() > limit;
    files.truncate(limit);
    let next = files.last().filter(|_| more).map(|file| &file.path);
    let next_page_token = paging::token(&state.engine, &binding, next)?;
    let files = files.into_iter().map(Shown::from).collect();
    answer::json(StatusCode::OK, &FilePage { files, next_page_token })
}

fn prefix(query: &Query) -> Result<String, Problem> {
    let prefix = query.one("prefix").unwrap_or("/");
    let plain = !prefix.chars().any(|c| c.is_control() || c == '\\');
    if !prefix.starts_with('/') || prefix.len() > MAX_PREFIX_BYTES || !plain {
        let text = "must begin with `/` and have at most 1024 bytes, no backslash and no control \
                    character";
        return Err(invalid("prefix", text));
    }
    Ok(prefix.to_owned())
}

fn header(request: &HttpRequest, name: HeaderName) -> Option<&str> {
    request.headers().get(name)?.to_str().ok()
}
