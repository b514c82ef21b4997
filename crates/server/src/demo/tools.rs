//! The three tools: what they are, and calling them.

use serde_json::{Value, json};

use super::{
    Person,
    calculate::{OPERATIONS, calculate},
    count_down::CountDown,
    reply::{Fault, Members, members},
    revision::Revision,
};

/// What a call comes to.
pub(super) enum Called {
    /// A result, to be sent at once.
    Result(Members),
    /// A count that takes its time.
    CountDown(CountDown),
}

/// The answer to `tools/list`, the same for everybody.
pub(super) fn list(revision: Revision, params: &Members) -> Result<Members, Fault> {
    if params.get("cursor").is_some_and(Value::is_string) {
        return Err(Fault::invalid_params(
            "the cursor is unknown; all tools are on the first page",
        ));
    }
    let tools: Vec<Value> = [get_user_info(), calculator(), counter()]
        .into_iter()
        .map(|tool| describe(revision, tool))
        .collect();
    Ok(members(json!({ "tools": tools })))
}

struct Tool {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    input: Value,
    output: Value,
}

fn get_user_info() -> Tool {
    Tool {
        name: "get_user_info",
        title: "Who am I?",
        description: "Tells which person is signed in, how they signed in, \
                      and which client is asking.",
        input: json!({ "type": "object", "properties": {} }),
        output: json!({
            "type": "object",
            "properties": {
                "subject": { "type": "string", "description": "The person who approved the client" },
                "sign_in": { "type": "string", "description": "How that person signed in" },
                "client": { "type": "string", "description": "The client that is asking" },
            },
            "required": ["subject", "sign_in", "client"],
        }),
    }
}

fn calculator() -> Tool {
    Tool {
        name: "calculate",
        title: "Calculator",
        description: "Adds, subtracts, multiplies or divides two numbers, \
                      or raises the first to the power of the second.",
        input: json!({
            "type": "object",
            "properties": {
                "operation": { "type": "string", "enum": OPERATIONS },
                "a": { "type": "number", "description": "The first number" },
                "b": { "type": "number", "description": "The second number" },
            },
            "required": ["operation", "a", "b"],
        }),
        output: json!({
            "type": "object",
            "properties": { "result": { "type": "number" } },
            "required": ["result"],
        }),
    }
}

fn counter() -> Tool {
    Tool {
        name: "count_down",
        title: "Countdown",
        description: "Counts down to zero, one step at a time, and reports progress on the way. \
                      Shows whether answers arrive as they are made.",
        input: json!({
            "type": "object",
            "properties": {
                "from": {
                    "type": "integer", "minimum": 1, "maximum": 10, "default": 5,
                    "description": "Where to start",
                },
                "interval_ms": {
                    "type": "integer", "minimum": 10, "maximum": 2000, "default": 300,
                    "description": "Milliseconds between two steps",
                },
            },
        }),
        output: json!({
            "type": "object",
            "properties": {
                "counted_from": { "type": "integer" },
                "progress_notifications": {
                    "type": "integer",
                    "description": "How many were sent; none unless the request had a progressToken",
                },
            },
            "required": ["counted_from", "progress_notifications"],
        }),
    }
}

fn describe(revision: Revision, tool: Tool) -> Value {
    let mut described = json!({
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.input,
    });
    if revision.has_annotations() {
        described["annotations"] = json!({
            "title": tool.title,
            "readOnlyHint": true,
            "openWorldHint": false,
        });
    }
    if revision.has_structured_content() {
        described["title"] = tool.title.into();
        described["outputSchema"] = tool.output;
    }
    described
}

/// Calls a tool.
///
/// A call that is malformed, or names no tool of ours, is a protocol error. Arguments that do not
/// fit are a *result* with `isError`, in every revision: the model that wrote them reads results
/// and can try again. (Revisions since 2025-11-25 ask for this; older ones leave it open for
/// values and list ill-typed arguments among the protocol errors, which their clients rarely show
/// to the model.)
pub(super) fn call(
    person: &Person<'_>,
    revision: Revision,
    params: &Members,
) -> Result<Called, Fault> {
    let Some(Value::String(name)) = params.get("name") else {
        return Err(Fault::invalid_params("params.name must be a string"));
    };
    let none = Members::new();
    let arguments = match params.get("arguments") {
        Some(Value::Object(arguments)) => arguments,
        None | Some(Value::Null) => &none,
        Some(_) => return Err(Fault::invalid_params("params.arguments must be an object")),
    };
    Ok(match name.as_str() {
        "get_user_info" => Called::Result(structured(
            revision,
            json!({
                "subject": person.subject,
                "sign_in": person.sign_in,
                "client": person.client,
            }),
        )),
        "calculate" => Called::Result(match calculate(arguments) {
            Ok(result) => structured(revision, json!({ "result": result })),
            Err(why) => failed(why),
        }),
        "count_down" => match CountDown::parse(arguments) {
            Ok(count_down) => Called::CountDown(count_down),
            Err(why) => Called::Result(failed(why)),
        },
        _ => {
            return Err(Fault::invalid_params(
                "params.name must be one of get_user_info, calculate, count_down",
            ));
        }
    })
}

/// A tool's result: structured for clients that know what that is, and as text for all.
pub(super) fn structured(revision: Revision, content: Value) -> Members {
    let mut result = members(json!({
        "content": [{ "type": "text", "text": content.to_string() }],
        "isError": false,
    }));
    if revision.has_structured_content() {
        result.insert("structuredContent".to_owned(), content);
    }
    result
}

fn failed(why: &str) -> Members {
    members(json!({
        "content": [{ "type": "text", "text": why }],
        "isError": true,
    }))
}
