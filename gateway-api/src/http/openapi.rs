//! `GET /openapi.json`: describes the routes, for tools.

use axum::Json;
use serde_json::{json, Map, Value};

/// Method, path, what it does, and whether it has a body.
const OPERATIONS: [(&str, &str, &str, bool); 17] = [
    ("get", "/healthz", "Whether the database answers", false),
    ("get", "/openapi.json", "This document", false),
    ("post", "/create", "Register a user with a client of an identity provider", true),
    ("get", "/user/{username}/tables", "List the RAW tables of a user", false),
    ("post", "/user/{username}/tables", "Make RAW tables for a user", true),
    ("post", "/user/{username}/tables/update", "Rename RAW tables, and add columns", true),
    ("post", "/user/{username}/tables/delete", "Delete RAW tables of a user; CDF keeps the rows", true),
    ("get", "/api/v1/projects/{project}/postgresgateway", "List users", false),
    (
        "post",
        "/api/v1/projects/{project}/postgresgateway",
        "Register a user with the nonce of a session",
        true,
    ),
    ("post", "/api/v1/projects/{project}/postgresgateway/list", "List users", true),
    ("post", "/api/v1/projects/{project}/postgresgateway/byids", "Retrieve users", true),
    ("post", "/api/v1/projects/{project}/postgresgateway/update", "Give a user another session", true),
    (
        "post",
        "/api/v1/projects/{project}/postgresgateway/delete",
        "Delete a user, and what was made for it",
        true,
    ),
    ("get", "/api/v1/projects/{project}/postgresgateway/tables/{username}", "List tables", false),
    ("post", "/api/v1/projects/{project}/postgresgateway/tables/{username}", "Make tables", true),
    ("post", "/api/v1/projects/{project}/postgresgateway/tables/{username}/byids", "Retrieve tables", true),
    ("post", "/api/v1/projects/{project}/postgresgateway/tables/{username}/delete", "Delete tables", true),
];

/// Returns the description of all routes, as OpenAPI 3.1 has it.
pub async fn document() -> Json<Value> {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, has_body) in OPERATIONS {
        let entry = paths.entry(path).or_insert_with(|| json!({ "parameters": parameters(path) }));
        entry[method] = operation(path, summary, has_body);
    }
    Json(json!({
        "openapi": "3.1.0",
        "info": { "title": "cdf-gateway-api", "version": env!("CARGO_PKG_VERSION") },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "description": "A token of CDF" } },
            "schemas": { "Error": { "type": "object", "required": ["error"], "properties": { "error": {
                "type": "object", "required": ["code", "message"],
                "properties": { "code": { "type": "integer" }, "message": { "type": "string" } } } } } },
        },
    }))
}

/// The parameters in a path.
fn parameters(path: &str) -> Vec<Value> {
    let is_there = |name: &&str| path.contains(&format!("{{{name}}}"));
    let parameter =
        |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    ["project", "username"].into_iter().filter(is_there).map(parameter).collect()
}

fn operation(path: &str, summary: &str, has_body: bool) -> Value {
    let content = |schema: Value| json!({ "application/json": { "schema": schema } });
    let object = || content(json!({ "type": "object" }));
    let error = content(json!({ "$ref": "#/components/schemas/Error" }));
    let mut operation = json!({
        "summary": summary,
        "responses": {
            "200": { "description": "Done", "content": object() },
            "default": { "description": "Refused", "content": error },
        },
    });
    if has_body {
        operation["requestBody"] = json!({ "required": true, "content": object() });
    }
    if matches!(path, "/healthz" | "/openapi.json") {
        operation["security"] = json!([]);
    }
    operation
}
