//! From a kind's JSON Schema to what Postgres checks at enqueue: for each field a jsonpath predicate, and all of them
//! in one. Only presence and type are checked there; the handler's own parse refuses the rest.

use serde_json::Value;

/// One demand on a payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FieldRule {
    /// Where, for people: `lines[*].hsn`; the payload itself is `payload`.
    pub(super) path: String,
    /// What must hold, for people: `is required`.
    pub(super) demand: String,
    /// The same as a jsonpath predicate.
    pub(super) predicate: String,
    /// What the predicate of all demands holds of it, where that is cheaper; empty when another demand implies it.
    quick: Option<String>,
    /// The same in strict mode, where a path that leads nowhere is a refusal by itself; empty when another implies it.
    strict: Option<String>,
}

/// Every demand of a schema, in the order of its fields.
pub(super) fn field_rules(schema: &Value) -> Vec<FieldRule> {
    let mut rules = vec![FieldRule {
        path: "payload".to_owned(),
        demand: "must be an object".to_owned(),
        predicate: r#"$.type() == "object""#.to_owned(),
        quick: None,
        strict: Some(String::new()),
    }];
    let mut walker = Walker { root: schema, rules: Vec::new(), at_hand: Vec::new() };
    walker.object(schema, "", "$", 0);
    rules.append(&mut walker.rules);
    rules
}

/// All demands as one predicate. Each enqueue pays for it: a payload of nothing but required plain fields, as most are,
/// gets the strict one, which asks once a field what the lax one asks two or three times.
pub(super) fn whole_rule(rules: &[FieldRule]) -> String {
    let all = |predicates: Vec<&str>| {
        let said: Vec<String> =
            predicates.into_iter().filter(|one| !one.is_empty()).map(|one| format!("({one})")).collect();
        said.join(" && ")
    };
    match rules.iter().map(|rule| rule.strict.as_deref()).collect::<Option<Vec<_>>>() {
        // A payload without fields still has to be an object.
        Some(strict) if rules.len() > 1 => format!("strict {}", all(strict)),
        _ => all(rules.iter().map(|rule| rule.quick.as_deref().unwrap_or(&rule.predicate)).collect()),
    }
}

/// Deeper than any payload of ours; ends a schema that refers to itself.
const MAX_DEPTH: usize = 8;

/// Collects the demands of a schema and of those it refers to.
struct Walker<'a> {
    root: &'a Value,
    rules: Vec<FieldRule>,
    /// Required fields of the payload itself, by their jsonpath.
    at_hand: Vec<String>,
}

impl Walker<'_> {
    fn object(&mut self, schema: &Value, path: &str, json_path: &str, depth: usize) {
        let schema = resolve(self.root, schema);
        if depth > MAX_DEPTH {
            return;
        }
        if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
            let required: Vec<&str> = schema
                .get("required")
                .and_then(Value::as_array)
                .map(|names| names.iter().filter_map(Value::as_str).collect())
                .unwrap_or_default();
            for (name, field) in fields {
                let quoted = Value::from(name.as_str());
                let field_path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let needed = required.contains(&name.as_str());
                // A field of the payload itself that must be there and be one thing: comparing its type says both, and
                // each enqueue pays for this.
                let at_hand = needed && json_path == "$" && !types_of(self.root, field, 0).is_empty();
                if at_hand {
                    self.at_hand.push(format!("{json_path}.{quoted}"));
                }
                if needed {
                    self.rules.push(FieldRule {
                        path: field_path.clone(),
                        demand: "is required".to_owned(),
                        predicate: format!(r#"!exists({json_path} ? (@.type() == "object" && !exists(@.{quoted})))"#),
                        quick: at_hand.then(String::new),
                        strict: at_hand.then(String::new),
                    });
                }
                self.value(field, &field_path, &format!("{json_path}.{quoted}"), depth + 1);
            }
        }
    }

    fn value(&mut self, schema: &Value, path: &str, json_path: &str, depth: usize) {
        let root = self.root;
        let types = types_of(root, schema, 0);
        if !types.is_empty() {
            let wrong = types
                .iter()
                .map(|name| format!(r#"@ != "{}""#, if name == "integer" { "number" } else { name }))
                .collect::<Vec<_>>()
                .join(" && ");
            let mut predicate = format!("!exists({json_path}.type() ? ({wrong}))");
            if types.iter().any(|name| name == "integer") {
                // JSON knows only numbers; a whole one is its own floor.
                predicate.push_str(&format!(r#" && !exists({json_path} ? (@.type() == "number" && @ != @.floor()))"#));
            }
            let at_hand = self.at_hand.iter().any(|at| at == json_path);
            let one_of = |whole: &str| {
                let one_of = types.iter().map(|name| match name.as_str() {
                    "integer" => whole.to_owned(),
                    other => format!(r#"{json_path}.type() == "{other}""#),
                });
                one_of.collect::<Vec<_>>().join(" || ")
            };
            let number = format!(r#"{json_path}.type() == "number""#);
            let quick = at_hand.then(|| one_of(&format!("({number} && {json_path} == {json_path}.floor())")));
            // Only a number has a remainder.
            let strict = at_hand.then(|| one_of(&format!("{json_path} % 1 == 0")));
            self.rules.push(FieldRule {
                path: path.to_owned(),
                demand: format!("must be {}", in_words(&types)),
                predicate,
                quick,
                strict,
            });
        }
        for variant in variants(root, schema) {
            if let Some(items) = variant.get("items") {
                self.value(items, &format!("{path}[*]"), &format!("{json_path}[*]"), depth + 1);
            }
            self.object(variant, path, json_path, depth);
        }
    }
}

/// The schema itself, or, where a field may be null or one thing, that thing.
fn variants<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let schema = resolve(root, schema);
    match alternatives(schema) {
        None => vec![schema],
        Some(all) => {
            let real: Vec<&Value> = all
                .iter()
                .map(|one| resolve(root, one))
                .filter(|one| one.get("type") != Some(&Value::from("null")))
                .collect();
            // With several things to choose from, fields differ: the handler's parse decides.
            if real.len() == 1 { real } else { Vec::new() }
        }
    }
}

fn types_of(root: &Value, schema: &Value, depth: usize) -> Vec<String> {
    let schema = resolve(root, schema);
    let mut types = Vec::new();
    match schema.get("type") {
        Some(Value::String(one)) => types.push(one.clone()),
        Some(Value::Array(several)) => types.extend(several.iter().filter_map(Value::as_str).map(str::to_owned)),
        _ => {}
    }
    if let Some(all) = alternatives(schema)
        && depth < MAX_DEPTH
    {
        for one in all {
            let inner = types_of(root, one, depth + 1);
            if inner.is_empty() {
                return Vec::new();
            }
            types.extend(inner);
        }
    }
    if types.is_empty() && schema.get("const").or_else(|| schema.get("enum")?.get(0)).is_some_and(Value::is_string) {
        types.push("string".to_owned());
    }
    types.dedup();
    types
}

fn alternatives(schema: &Value) -> Option<&Vec<Value>> {
    schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Value::as_array)
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut schema = schema;
    for _ in 0..MAX_DEPTH {
        let Some(target) = schema.get("$ref").and_then(Value::as_str).and_then(|at| at.strip_prefix('#')) else {
            return schema;
        };
        schema = root.pointer(target).unwrap_or(&Value::Null);
    }
    schema
}

fn in_words(types: &[String]) -> String {
    types
        .iter()
        .map(|name| match name.as_str() {
            "object" => "an object",
            "array" => "an array",
            "string" => "a string",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            other => other,
        })
        .collect::<Vec<_>>()
        .join(" or ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_becomes_demands_with_paths() {
        let schema = json!({
            "type": "object",
            "required": ["serial", "lines"],
            "properties": {
                "serial": {"type": "string"},
                "count": {"type": ["integer", "null"]},
                "buyer": {"anyOf": [{"$ref": "#/$defs/Party"}, {"type": "null"}]},
                "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
            },
            "$defs": {
                "Party": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
                "Line": {"type": "object", "required": ["hsn"], "properties": {"hsn": {"type": "string"}}},
            },
        });
        let said: Vec<String> =
            field_rules(&schema).into_iter().map(|rule| format!("{} {}", rule.path, rule.demand)).collect();
        assert_eq!(
            said,
            [
                "payload must be an object",
                "buyer must be an object or null",
                "buyer.name is required",
                "buyer.name must be a string",
                "count must be a whole number or null",
                "lines is required",
                "lines must be an array",
                "lines[*] must be an object",
                "lines[*].hsn is required",
                "lines[*].hsn must be a string",
                "serial is required",
                "serial must be a string",
            ]
        );
    }

    /// What enqueue asks in one must hold exactly where each demand by itself holds, whatever comes.
    #[tokio::test]
    async fn the_one_predicate_agrees_with_all_demands() {
        let plain = json!({
            "type": "object",
            "required": ["n", "name", "sure", "list", "or_none"],
            "properties": {
                "n": {"type": "integer"},
                "name": {"type": "string"},
                "sure": {"type": "boolean"},
                "list": {"type": "array"},
                "or_none": {"type": ["integer", "null"]},
            },
        });
        let mut optional = plain.clone();
        optional["properties"]["more"] = json!({"type": "integer"});
        let bare = json!({"type": "object", "properties": {}});
        let good = json!({"n": 1, "name": "x", "sure": true, "list": [], "or_none": null});
        let mut payloads = vec![json!(null), json!(1), json!("n"), json!([]), json!({}), json!([good]), good.clone()];
        for field in ["n", "name", "sure", "list", "or_none", "more"] {
            let mut without = good.clone();
            without.as_object_mut().unwrap().remove(field);
            payloads.push(without);
            for value in
                [json!(null), json!(2), json!(2.5), json!(-1e30), json!("2"), json!(false), json!([3]), json!({"n": 1})]
            {
                let mut with = good.clone();
                with[field] = value;
                payloads.push(with);
            }
        }
        let db = muneem_postgres::testing::TestDb::empty().await;
        for (schema, strict) in [(plain, true), (optional, false), (bare, false)] {
            let rules = field_rules(&schema);
            let whole = whole_rule(&rules);
            assert_eq!(whole.starts_with("strict "), strict, "{whole}");
            let each: Vec<&str> = rules.iter().map(|rule| rule.predicate.as_str()).collect();
            let taken: Vec<(serde_json::Value, bool, bool)> = sqlx::query_as(
                "select p, coalesce(p @@ $2::jsonpath, false),
                    (select bool_and(coalesce(p @@ r::jsonpath, false)) from unnest($3::text[]) r)
                from unnest($1::jsonb[]) p",
            )
            .bind(&payloads)
            .bind(&whole)
            .bind(&each)
            .fetch_all(&db.pool())
            .await
            .unwrap();
            assert!(taken.iter().any(|(_, whole, _)| *whole) && taken.iter().any(|(_, whole, _)| !whole));
            for (payload, by_whole, by_each) in taken {
                assert_eq!(by_whole, by_each, "{payload} by {whole}");
            }
        }
    }
}
