//! The document keeps its own promises, and the page shows all of it.

use std::collections::BTreeSet;

use super::*;
use crate::ingress::problem::Code;
use crate::lifecycle::{EventType, known_patterns};

const URL: &str = "https://jobs.example:8443/api";

fn parsed() -> Node {
    serde_json::from_str(&document(URL)).unwrap()
}

/// Every operation as `("GET", "/v1/jobs")`, in the document's order.
fn operations() -> Vec<(String, String)> {
    all_operations()
        .map(|(path, method, _)| (method.to_ascii_uppercase(), path.to_owned()))
        .collect()
}

/// Calls `visit` for every object of a tree, with the member name it stands under.
fn walk<'a>(name: &'a str, node: &'a Node, visit: &mut impl FnMut(&'a str, &'a Node)) {
    visit(name, node);
    node.items().iter().for_each(|item| walk(name, item, visit));
    node.members().iter().for_each(|(name, member)| walk(name, member, visit));
}

#[test]
fn the_document_is_json_with_its_address_and_version() {
    for url in [URL, "https://jobs.example:8443/api/", "https://[::1]/\"quoted\""] {
        let value: Value = serde_json::from_str(&document(url)).unwrap();
        assert_eq!(value["servers"][0]["url"], url.trim_end_matches('/'));
        assert_eq!(value["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(value["openapi"], "3.1.0");
    }
    assert!(!document(URL).contains("\"@"));
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = parsed();
    let mut used = BTreeSet::new();
    walk("", &document, &mut |name, node| {
        if let ("$ref", Node::Text(reference)) = (name, node) {
            assert!(document.at(reference).is_some(), "{reference}");
            used.insert(reference.clone());
        }
    });
    // Payloads differ by job type, and a result does not say which it holds.
    let named_in_text = ["ImportFilePayload", "ArchiveCreatePayload", "ArchiveExtractPayload"];
    for (kind, components) in document.members_of("components") {
        for (name, _) in components.members() {
            let reference = format!("#/components/{kind}/{name}");
            let is_free = kind == "securitySchemes" || named_in_text.contains(&name.as_str());
            assert!(is_free || used.contains(&reference), "{reference} is not used");
        }
    }
}

#[test]
fn every_operation_is_named_and_tagged_and_says_how_it_fails() {
    let document = parsed();
    let tags: Vec<&str> = document.items_of("tags").iter().map(|it| it.text_of("name")).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in all_operations() {
        let id = operation.text_of("operationId");
        assert!(ids.insert(id) && !id.is_empty(), "{method} {path}");
        assert!(!operation.text_of("summary").is_empty(), "{id}");
        let own: Vec<_> = operation.items_of("tags").iter().filter_map(Node::text).collect();
        assert!(matches!(own[..], [tag] if tags.contains(&tag)), "{id}");

        let answers = operation.members_of("responses");
        let has = |status: &str| answers.iter().any(|(it, _)| it == status);
        assert!(!has("default") && !has("500"), "{id}: a failure of ours is not a promise");
        assert!(answers.iter().any(|(status, _)| status.starts_with('2')), "{id}");
        if operation.items_of("security").is_empty() {
            assert_eq!(operation.get("security"), Some(&Node::List(Vec::new())), "{id}");
            assert!(!path.starts_with("/v1/"), "{id}");
            continue;
        }
        for status in ["400", "401", "403", "429", "503"] {
            assert!(has(status), "{id} lacks {status}");
        }
        assert!(!path.contains('{') || method == "put" || has("404"), "{id}");
        if operation.get("requestBody").is_some() {
            assert!(has("413"), "{id}");
        }
        for name in path.split('{').skip(1).filter_map(|part| part.split('}').next()) {
            let parameters = operation.items_of("parameters").iter();
            let mut parameters = parameters.map(|it| document.resolve(it));
            assert!(
                parameters.any(|it| it.text_of("name") == name && it.text_of("in") == "path"),
                "{id} does not describe {name}"
            );
        }
    }
}

#[test]
fn links_name_operations_and_their_parameters() {
    let document = parsed();
    walk("", &document, &mut |name, node| {
        if name != "links" {
            return;
        }
        for (link, target) in node.members() {
            let id = target.text_of("operationId");
            let (_, _, operation) =
                all_operations().find(|(_, _, it)| it.text_of("operationId") == id).unwrap();
            for (parameter, _) in target.members_of("parameters") {
                let parameters = operation.items_of("parameters").iter();
                let mut names = parameters.map(|it| document.resolve(it).text_of("name"));
                assert!(names.any(|name| name == parameter), "{link}: {parameter}");
            }
        }
    });
}

#[test]
fn request_objects_are_closed_and_answers_are_open() {
    let document = parsed();
    let schema = |name: &str| document.at(&format!("#/components/schemas/{name}")).unwrap();
    let closed = |name: &str| schema(name).get("additionalProperties") == Some(&Node::Bool(false));
    for name in [
        "ImportFileSubmission",
        "ArchiveCreateSubmission",
        "ArchiveExtractSubmission",
        "NoopSubmission",
        "BatchSubmission",
        "GroupSubmission",
        "Callback",
        "RateLimit",
        "Source",
        "ArchiveSource",
        "FileDestination",
        "DirectoryDestination",
        "ExternalAuthorization",
        "ExtractedFilesReport",
        "EndpointSubmission",
        "EndpointPatch",
        "RateChange",
        "SecretAddition",
        "SecretRotation",
        "NoMembers",
        "Enabling",
        "Replay",
        "Trigger",
        "RedeliverySubmission",
        "DeliveryFilter",
    ] {
        assert!(closed(name), "{name}");
    }
    let open = ["Job", "Group", "Event", "FileDescriptor", "Delivery", "Attempt", "Problem"];
    let open = open.into_iter().chain(["Endpoint", "Secret", "EndpointStats", "FeedPage"]);
    for name in open {
        assert!(schema(name).get("additionalProperties").is_none(), "{name}");
    }
}

#[test]
fn every_problem_code_is_documented_under_its_status() {
    let document = parsed();
    let listed = document.at("#/components/schemas/Problem/properties/code/enum").unwrap();
    let listed: Vec<&str> = listed.items().iter().filter_map(Node::text).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(listed, codes);

    let mut seen = BTreeSet::new();
    for (path, method, operation) in all_operations() {
        for (status, answer) in operation.members_of("responses") {
            for word in document.resolve(answer).items_of("x-problem-codes") {
                let word = word.text().unwrap();
                let code = Code::ALL.iter().find(|code| code.as_str() == word).unwrap();
                assert_eq!(code.status().as_str(), status, "{method} {path}: {word}");
                seen.insert(word);
            }
        }
    }
    // An unknown method belongs to no operation; a fault of ours or a full server may hit any.
    for code in Code::ALL {
        let everywhere = matches!(code, Code::MethodNotAllowed | Code::Internal);
        assert!(everywhere || seen.contains(code.as_str()), "{code:?}");
    }
    walk("", &document, &mut |name, node| {
        if name == "application/problem+json" {
            let example = node.get("example").unwrap();
            let code =
                Code::ALL.iter().find(|code| code.as_str() == example.text_of("code")).unwrap();
            assert_eq!(example.text_of("title"), code.title());
        }
    });
}

#[test]
fn every_event_and_family_is_named() {
    let document = parsed();
    let listed = |name: &str| {
        let listed = document.at(&format!("#/components/schemas/{name}/enum")).unwrap();
        listed.items().iter().filter_map(Node::text).map(str::to_owned).collect::<Vec<_>>()
    };
    let types: Vec<&str> = EventType::ALL.iter().map(|event| event.as_str()).collect();
    assert_eq!(listed("EventType"), types);
    assert_eq!(listed("EventPattern").join(", "), known_patterns());
}

#[test]
fn operations_are_listed_in_order() {
    let operations = operations();
    assert_eq!(operations[0], ("POST".to_owned(), "/v1/jobs".to_owned()));
    assert!(operations.contains(&("HEAD".to_owned(), "/v1/files/{path}".to_owned())));
    assert_eq!(operations.iter().collect::<BTreeSet<_>>().len(), operations.len());
}

#[test]
fn the_page_shows_every_operation_schema_and_code() {
    let page = docs::page(URL);
    for (method, path) in operations() {
        assert!(page.contains(&format!("{method}</span> <code>{path}</code>")), "{method} {path}");
    }
    for (_, _, operation) in all_operations() {
        let id = operation.text_of("operationId");
        assert!(page.contains(&format!("<h3 id=\"{id}\">")), "{id}");
        assert!(page.contains(&format!("<a href=\"#{id}\">")), "{id}");
    }
    for (name, _) in tree().at("#/components/schemas").unwrap().members() {
        assert!(page.contains(&format!("<h3 id=\"schema-{name}\">")), "{name}");
    }
    assert!(Code::ALL.iter().all(|code| page.contains(code.as_str())));
}

#[test]
fn every_link_of_the_page_stays_on_it() {
    let page = docs::page(URL);
    for target in page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        match target.strip_prefix('#') {
            Some(anchor) => assert!(page.contains(&format!("id=\"{anchor}\"")), "{anchor}"),
            None => assert_eq!(target, "openapi.json"),
        }
    }
    for active in ["<script", "src=", "url(", "@import", "<link", "<img", "javascript:", " on"] {
        let tags = page.split('<').skip(1).filter_map(|rest| rest.split('>').next());
        let inside = tags.map(|tag| format!("<{tag}")).any(|tag| tag.contains(active));
        assert!(!inside, "{active}");
    }
    // Addresses are there as text only, and only this server's and the examples'.
    for (at, _) in page.match_indices("://") {
        let rest = &page[at + 3..];
        let known = ["jobs.example:8443/api", "example.com/", "&lt;"];
        assert!(known.iter().any(|host| rest.starts_with(host)), "{}", &rest[..40]);
    }
}

#[test]
fn a_hostile_address_stays_text() {
    let page = docs::page("https://x/'\"><script>alert(1)</script>");
    assert!(!page.contains("<script") && page.contains("&#39;&quot;&gt;&lt;script&gt;alert(1)"));
}
