//! The JSON Schema of the lines.

use crate::event::{Line, SCHEMA, check};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The JSON Schema (draft 2020-12) of a line of a trace as this program writes it. Keys that may be
/// null are required; `_b64` keys are not.
#[must_use]
pub fn trace() -> Value {
    schema::<Line>("etxtbsy-trace")
}

/// The JSON Schema of a line of `check`.
#[must_use]
pub fn check() -> Value {
    schema::<check::Line>("etxtbsy-trace check")
}

fn schema<T: JsonSchema>(what: &str) -> Value {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut schema = generator.into_root_schema_for::<T>();
    schema.insert("title".to_owned(), format!("A line of {what}, schema {SCHEMA}").into());
    schema.to_value()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::output::samples;
    use proptest::prelude::*;

    /// The samples as JSON.
    fn lines() -> Vec<Value> {
        let mut lines = samples::every_line();
        lines.push(samples::with_stacks().into());
        lines.iter().map(|line| serde_json::to_value(line).unwrap()).collect()
    }

    #[test]
    fn written_lines_are_valid() {
        let schema = jsonschema::validator_for(&trace()).unwrap();
        for line in lines() {
            let errors: Vec<String> = schema.iter_errors(&line).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{line}: {errors:?}");
        }
    }

    #[test]
    fn lines_with_a_missing_or_wrong_key_are_invalid() {
        let schema = jsonschema::validator_for(&trace()).unwrap();
        let mut broken = 0;
        for line in lines() {
            for key in line.as_object().unwrap().keys() {
                let mut without = line.clone();
                without.as_object_mut().unwrap().remove(key);
                assert!(!schema.is_valid(&without), "{key} is not required: {line}");
                let mut other = line.clone();
                other[key] = serde_json::json!({"no": ["such", "thing"]});
                assert!(!schema.is_valid(&other), "{key} may be anything: {line}");
                broken += 1;
            }
        }
        assert!(broken > 0);
    }

    #[test]
    fn keys_that_may_be_null_are_required_and_those_for_bytes_are_not() {
        let schema = jsonschema::validator_for(&trace()).unwrap();
        let mut line = serde_json::to_value(Line::from(samples::race())).unwrap();
        line["victim"]["cwd"] = Value::Null;
        assert!(schema.is_valid(&line));
        line["victim"]["cwd_b64"] = "L3dvcms=".into();
        assert!(schema.is_valid(&line));
        line["victim"].as_object_mut().unwrap().remove("cwd");
        assert!(!schema.is_valid(&line));
    }

    #[test]
    fn the_schema_names_its_draft_and_title() {
        let schema = trace();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["title"], "A line of etxtbsy-trace, schema 2");
    }

    /// The names of all keys and all values of enums in `schema`.
    fn names(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                let properties = map.get("properties").and_then(Value::as_object);
                found.extend(properties.into_iter().flat_map(|keys| keys.keys().cloned()));
                found.extend(map.get("const").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| names(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }

    #[test]
    fn the_page_on_json_knows_every_name_and_its_example_is_valid() {
        let page = include_str!("../../../docs/json.md");
        let mut found = Vec::new();
        for schema in [trace(), check()] {
            names(&schema, &mut found);
        }
        assert!(found.contains(&"after_ns".to_owned()) && found.contains(&"leaked-fd".to_owned()));
        for name in found {
            assert!(page.contains(&format!("`{name}`")), "{name} is not explained");
        }
        let (_, example) = page.split_once("```json\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let value: Value = serde_json::from_str(example).unwrap();
        let line: Line = serde_json::from_str(example).unwrap();
        assert_eq!(serde_json::to_value(line).unwrap(), value);
        let schema = jsonschema::validator_for(&trace()).unwrap();
        assert!(schema.is_valid(&value));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn any_string_is_valid(strings in samples::strings()) {
            let schema = jsonschema::validator_for(&trace()).unwrap();
            let incident = samples::with_strings(&samples::with_stacks(), &strings);
            let line = serde_json::to_value(Line::from(incident)).unwrap();
            prop_assert!(schema.is_valid(&line));
        }
    }
}
