//! As much of JSON Schema (draft 7) as the schema uses. A keyword that is not known here is refused, never passed over.

use regex_lite::Regex;
use serde_json::{Map, Value};

/// A schema.
pub(super) struct Schema(Value);

impl Schema {
    pub(super) fn new(text: &str) -> Self {
        Self(serde_json::from_str(text).unwrap())
    }

    /// What is wrong with a value, each with its place.
    pub(super) fn complaints(&self, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.judge(&self.0, value, "", &mut found);
        found
    }

    fn fits(&self, schema: &Value, value: &Value) -> bool {
        let mut found = Vec::new();
        self.judge(schema, value, "", &mut found);
        found.is_empty()
    }

    fn judge(&self, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
        let rules = match schema {
            Value::Bool(true) => return,
            Value::Bool(false) => return found.push(format!("{place}: must not be there")),
            Value::Object(rules) => rules,
            other => panic!("{other} is no schema"),
        };
        for (keyword, rule) in rules {
            self.apply((keyword, rule), rules, value, place, found);
        }
    }

    fn apply(
        &self,
        (keyword, rule): (&str, &Value),
        rules: &Map<String, Value>,
        value: &Value,
        place: &str,
        found: &mut Vec<String>,
    ) {
        let list = || rule.as_array().unwrap();
        let holds = match keyword {
            "$schema" | "$id" | "title" | "description" | "default" | "definitions" | "then" | "else" => true,
            "$ref" => {
                let definition = self.0.pointer(rule.as_str().unwrap().trim_start_matches('#'));
                return self.judge(definition.unwrap(), value, place, found);
            }
            "allOf" => return list().iter().for_each(|each| self.judge(each, value, place, found)),
            "anyOf" => list().iter().any(|each| self.fits(each, value)),
            "not" => !self.fits(rule, value),
            "if" => {
                let branch = if self.fits(rule, value) { "then" } else { "else" };
                return rules.get(branch).into_iter().for_each(|branch| self.judge(branch, value, place, found));
            }
            "properties" => {
                let (rules, fields) = (rule.as_object().unwrap(), value.as_object());
                for (name, field) in fields.into_iter().flatten() {
                    rules
                        .get(name)
                        .into_iter()
                        .for_each(|rule| self.judge(rule, field, &format!("{place}.{name}"), found));
                }
                return;
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.judge(rule, item, &format!("{place}[{n}]"), found);
                }
                return;
            }
            "additionalProperties" => {
                let known = rules["properties"].as_object().unwrap();
                value.as_object().is_none_or(|fields| fields.keys().all(|name| known.contains_key(name)))
            }
            "required" => {
                value.as_object().is_none_or(|f| list().iter().all(|name| f.contains_key(name.as_str().unwrap())))
            }
            "type" => is_of(rule.as_str().unwrap(), value),
            "enum" => list().contains(value),
            "const" => rule == value,
            "pattern" => value.as_str().is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "maxLength" => value.as_str().is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap()),
            "minimum" => value.as_number().is_none_or(|_| value.as_i64() >= rule.as_i64()),
            "maximum" => {
                value.as_number().is_none_or(|_| value.as_i64().is_some_and(|value| Some(value) <= rule.as_i64()))
            }
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            other => panic!("{other} is a keyword that this validator does not know"),
        };
        if !holds {
            found.push(format!("{place}: {keyword} {rule}"));
        }
    }
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("no type {other}"),
    }
}
