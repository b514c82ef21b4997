//! The JSON schema of the configuration file, for editors and for the reference page.

use schemars::{Schema, generate::SchemaSettings, transform::transform_subschemas};
use serde_json::Value;

use super::Config;

/// The JSON schema of the configuration file.
pub fn schema() -> Schema {
    SchemaSettings::draft2020_12()
        .with_transform(without_null)
        .into_generator()
        .into_root_schema_for::<Config>()
}

/// Whether `name` is a key outside every table.
pub(super) fn has_top_level_key(name: &str) -> bool {
    schema()
        .get("properties")
        .and_then(Value::as_object)
        .is_some_and(|properties| properties.contains_key(name))
}

/// Whether `name` is a key of the table of an upstream.
pub(super) fn is_key_of_upstream(name: &str) -> bool {
    schema()
        .pointer("/$defs/UpstreamConfig/properties")
        .and_then(Value::as_object)
        .is_some_and(|properties| properties.contains_key(name))
}

/// Takes out `null`, which stands for an absent key in Rust but cannot be written in TOML.
fn without_null(schema: &mut Schema) {
    transform_subschemas(&mut without_null, schema);
    let null = Value::from("null");
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| *kind != null);
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type") != Some(&null));
        if let [only] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (keyword, value) in only.as_object().into_iter().flatten() {
                schema.insert(keyword.clone(), value.clone());
            }
        }
    }
}
