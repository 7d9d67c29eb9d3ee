//! The document as one page for people: no script, nothing from outside, readable on a phone.
//!
//! Everything on it comes from the document.

use super::html::Html;
use super::schema_table::{SchemaTable, anchor};
use super::tree::Node;
use super::{METHODS, all_operations, curl, tree};

/// The policy of the page, which has styles of its own and nothing else.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
                                           base-uri 'none'; form-action 'none'; \
                                           frame-ancestors 'none'";

/// The page of a server that is reached at `public_url`.
pub fn page(public_url: &str) -> String {
    let document = tree();
    let info = document.get("info").unwrap_or(&Node::Null);
    let mut html = Html::default();
    html.raw("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>");
    html.text(info.text_of("title")).raw(" API</title>\n<style>\n");
    html.raw(include_str!("docs.css")).raw("</style>\n</head>\n<body>\n<div class=\"page\">\n");
    navigation(&mut html, document);
    html.raw("<main>\n<h1>").text(info.text_of("title")).raw(" API <span class=\"dim\">");
    html.text(env!("CARGO_PKG_VERSION")).raw("</span></h1>\n<p>");
    html.prose(info.text_of("summary")).raw("</p>\n<p>Served at ").code(public_url);
    html.raw("; for programs as <a href=\"openapi.json\">openapi.json</a> (OpenAPI 3.1).</p>\n");
    html.paragraphs(info.text_of("description"));
    for tag in document.items_of("tags") {
        section(&mut html, document, public_url, tag);
    }
    problems(&mut html, document);
    schemas(&mut html, document);
    html.raw("</main>\n</div>\n</body>\n</html>\n");
    html.finish()
}

/// Path, method and operation of a tag. Webhooks have a name instead of a path.
fn of_tag<'a>(
    tag: &'a str,
) -> impl Iterator<Item = (&'static str, &'static str, &'static Node)> + 'a {
    let webhooks = tree().members_of("webhooks").iter().flat_map(|(name, item)| {
        item.members()
            .iter()
            .filter(|(method, _)| METHODS.contains(&method.as_str()))
            .map(move |(method, operation)| (name.as_str(), method.as_str(), operation))
    });
    all_operations()
        .chain(webhooks)
        .filter(move |(_, _, it)| it.items_of("tags").iter().any(|it| it.text() == Some(tag)))
}

fn navigation(html: &mut Html, document: &Node) {
    html.raw("<nav aria-label=\"Operations\">\n");
    for tag in document.items_of("tags") {
        let name = tag.text_of("name");
        html.raw("<strong>").link(&format!("tag-{name}"), name).raw("</strong>\n<ul>\n");
        for (_, _, operation) in of_tag(name) {
            html.raw("<li>").link(operation.text_of("operationId"), operation.text_of("summary"));
            html.raw("</li>\n");
        }
        html.raw("</ul>\n");
    }
    html.raw("<strong>").link("problems", "problems").raw("</strong><br>\n<strong>");
    html.link("schemas", "schemas").raw("</strong>\n</nav>\n");
}

fn section(html: &mut Html, document: &'static Node, public_url: &str, tag: &'static Node) {
    let name = tag.text_of("name");
    html.raw("<h2 id=\"tag-").text(name).raw("\">").text(name).raw("</h2>\n");
    html.paragraphs(tag.text_of("description"));
    for (path, method, operation) in of_tag(name) {
        html.raw("<section>\n<h3 id=\"").text(operation.text_of("operationId")).raw("\">");
        html.text(operation.text_of("summary")).raw("</h3>\n<p class=\"call\">");
        html.raw("<span class=\"method ").text(method).raw("\">");
        html.text(&method.to_ascii_uppercase()).raw("</span> ").code(path).raw("</p>\n");
        html.paragraphs(operation.text_of("description"));
        scope(html, operation);
        parameters(html, document, operation);
        request(html, document, operation);
        if path.starts_with('/') {
            html.raw("<h4>Example</h4>\n");
            html.block(&curl::command(document, public_url, path, method, operation));
        }
        answers(html, document, operation);
        html.raw("</section>\n");
    }
}

fn scope(html: &mut Html, operation: &Node) {
    let scopes = operation.items_of("security").iter().flat_map(|it| it.items_of("bearer"));
    for scope in scopes.filter_map(Node::text) {
        html.raw("<p class=\"dim\">Needs the scope ").code(scope).raw(".</p>\n");
    }
}

fn parameters(html: &mut Html, document: &'static Node, operation: &'static Node) {
    let parameters = operation.items_of("parameters");
    if parameters.is_empty() {
        return;
    }
    html.raw("<h4>Parameters</h4>\n<div class=\"wide\"><table><thead>");
    html.raw("<tr><th>Name<th>In<th>Type<th>Meaning</thead>\n");
    for parameter in parameters {
        let parameter = document.resolve(parameter);
        html.raw("<tr><td class=\"name\">").code(parameter.text_of("name"));
        if parameter.get("required") == Some(&Node::Bool(true)) {
            html.raw(" <em>required</em>");
        }
        html.raw("<td>").text(parameter.text_of("in")).raw("<td>");
        if let Some(schema) = parameter.get("schema") {
            SchemaTable { document, unfold: false }.draw_kind(html, schema);
        }
        html.raw("<td>").prose(parameter.text_of("description")).raw("\n");
    }
    html.raw("</table></div>\n");
}

fn request(html: &mut Html, document: &'static Node, operation: &'static Node) {
    let Some(body) = operation.get("requestBody") else {
        return;
    };
    html.raw("<h4>Request body</h4>\n").paragraphs(body.text_of("description"));
    for (media_type, media) in body.members_of("content") {
        html.raw("<p>").code(media_type).raw("</p>\n");
        if let Some(schema) = media.get("schema") {
            SchemaTable { document, unfold: true }.draw(html, schema);
        }
        for (_, example) in media.members_of("examples") {
            let example = document.resolve(example);
            html.raw("<details><summary>").text(example.text_of("summary")).raw("</summary>\n");
            html.block(&example.get("value").unwrap_or(&Node::Null).pretty()).raw("</details>\n");
        }
    }
}

fn answers(html: &mut Html, document: &'static Node, operation: &'static Node) {
    html.raw("<h4>Answers</h4>\n<div class=\"wide\"><table><thead>");
    html.raw("<tr><th>Status<th>Body<th>Meaning</thead>\n");
    for (status, answer) in operation.members_of("responses") {
        let answer = document.resolve(answer);
        html.raw("<tr><td class=\"name\">").code(status).raw("<td>");
        for (media_type, media) in answer.members_of("content") {
            match media.get("schema") {
                Some(schema) if schema.get("$ref").is_some() => {
                    SchemaTable { document, unfold: false }.draw_kind(html, schema);
                }
                _ => _ = html.code(media_type),
            }
        }
        html.raw("<td>").prose(answer.text_of("description"));
        named_list(html, "<br>Codes: ", answer.items_of("x-problem-codes").iter().map(Node::text));
        named_list(
            html,
            "<br>Headers: ",
            answer.members_of("headers").iter().map(|(name, _)| Some(name.as_str())),
        );
        html.raw("\n");
    }
    html.raw("</table></div>\n");
    for (status, answer) in operation.members_of("responses") {
        let answer = document.resolve(answer);
        if !status.starts_with('2') {
            continue;
        }
        let examples = answer.members_of("content").iter().filter_map(|(_, it)| it.get("example"));
        for example in examples {
            html.raw("<details><summary>Example of ").text(status).raw("</summary>\n");
            html.block(&example.pretty()).raw("</details>\n");
        }
    }
}

fn named_list<'a>(
    html: &mut Html,
    label: &'static str,
    names: impl Iterator<Item = Option<&'a str>>,
) {
    for (place, name) in names.flatten().enumerate() {
        html.raw(if place == 0 { label } else { ", " }).code(name);
    }
}

/// Which code comes with which status, once for all operations.
fn problems(html: &mut Html, document: &'static Node) {
    html.raw("<h2 id=\"problems\">problems</h2>\n<div class=\"wide\"><table><thead>");
    html.raw("<tr><th>Code<th>Status<th>Title</thead>\n");
    for code in crate::ingress::problem::Code::ALL {
        html.raw("<tr><td class=\"name\">").code(code.as_str()).raw("<td>");
        html.text(code.status().as_str()).raw("<td>").text(code.title()).raw("\n");
    }
    html.raw("</table></div>\n<p>All have the shape ").link(&anchor("Problem"), "Problem");
    html.raw(".</p>\n");
    let example = document.at("#/components/responses/BadSubmission/content");
    if let Some(example) = example.and_then(|it| it.members().first()?.1.get("example")) {
        html.block(&example.pretty());
    }
}

fn schemas(html: &mut Html, document: &'static Node) {
    html.raw("<h2 id=\"schemas\">schemas</h2>\n");
    let schemas = document.at("#/components/schemas").map(Node::members).unwrap_or_default();
    for (name, schema) in schemas {
        html.raw("<h3 id=\"").text(&anchor(name)).raw("\">").text(name).raw("</h3>\n");
        html.paragraphs(schema.text_of("description"));
        SchemaTable { document, unfold: false }.draw(html, schema);
    }
}
