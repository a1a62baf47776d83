//! Holds what the agent says against its own document: `docs/openapi.json` describes every answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use keystone_broker::listen::socket;
use serde_json::{Value, json};

/// The document as the code makes it.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::to_value(socket::document()).unwrap())
}

/// Fails unless the document has this operation and its answer looks like this.
#[track_caller]
pub fn check_answer(method: &str, path: &str, status: u16, kind: Option<&str>, body: &str) {
    let operation = operation(method, path);
    let responses = &operation["responses"];
    let described = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    assert!(described.is_object(), "{method} {path}: {status} is not in the document");
    let Some(content) = described.get("content").and_then(Value::as_object) else {
        assert!(body.is_empty(), "{method} {path}: {status} has no body in the document: {body}");
        return;
    };
    let kind = kind.unwrap_or_default();
    let content =
        content.get(kind).unwrap_or_else(|| panic!("{method} {path}: {status} is no {kind}: {body}"));
    check(&content["schema"], body, &format!("{method} {path}: {status}"));
}

/// Fails unless this is what the document says that the operation takes.
#[track_caller]
pub fn check_question(method: &str, path: &str, body: &Value) {
    let schema = &operation(method, path)["requestBody"]["content"]["application/json"]["schema"];
    check(schema, &body.to_string(), &format!("{method} {path}: request"));
}

/// The operation whose path has the same parts; `{…}` stands for one of them.
#[track_caller]
fn operation(method: &str, path: &str) -> &'static Value {
    let path = path.split('?').next().unwrap();
    let fits = |template: &str| {
        let (parts, wanted): (Vec<_>, Vec<_>) = (path.split('/').collect(), template.split('/').collect());
        parts.len() == wanted.len()
            && parts.iter().zip(wanted).all(|(part, wanted)| wanted.starts_with('{') || *part == wanted)
    };
    let paths = document()["paths"].as_object().unwrap();
    let found = paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item);
    let operation = found.and_then(|item| item.get(method.to_lowercase()));
    operation.unwrap_or_else(|| panic!("{method} {path} is not in the document"))
}

#[track_caller]
fn check(schema: &Value, body: &str, what: &str) {
    let body: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{what}: {error}: {body}"));
    let validator = validator(schema);
    let faults: Vec<_> =
        validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(faults.is_empty(), "{what} is not as documented: {faults:?}\n{body:#}");
}

/// The validator of a schema of the document; made once, because making one takes its time.
fn validator(schema: &Value) -> Arc<Validator> {
    static MADE: OnceLock<Mutex<HashMap<String, Arc<Validator>>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Mutex::default).lock().unwrap();
    let validator = made.entry(schema.to_string()).or_insert_with(|| {
        let whole = json!({"allOf": [schema], "components": document()["components"]});
        Arc::new(jsonschema::validator_for(&whole).unwrap())
    });
    validator.clone()
}
