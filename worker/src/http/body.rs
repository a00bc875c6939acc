//! JSON bodies, read strictly: limited in size and depth, no key twice, nothing that Postgres cannot keep, no field
//! that nobody asked for. Each refusal names the field.

use std::{cell::RefCell, fmt};

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use muneem_jobs::vault::screen;
use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

use super::problem::{Problem, ProblemId};

const DEPTH_MAX: usize = 64;
/// Of a body that is too large anyway, so much is read on: a sender in the middle of it would not see the answer.
const READ_ON_BYTES: usize = 64 << 20;
/// Whole numbers past this lose digits in JSON's arithmetic.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// The whole body, if it is no larger than `limit`.
pub(super) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    if let Some(declared) = headers.get(header::CONTENT_TYPE) {
        let declared = declared.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !declared.eq_ignore_ascii_case("application/json") {
            return Err(ProblemId::NotJson.into());
        }
    }
    let mut stream = body.into_data_stream();
    let (mut kept, mut seen) = (BytesMut::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Problem::new(ProblemId::BadJson, "the body broke off"))?;
        seen += chunk.len();
        if seen <= limit {
            kept.extend_from_slice(&chunk);
        } else if seen > limit + READ_ON_BYTES {
            break;
        }
    }
    if seen > limit {
        return Err(Problem::new(ProblemId::TooLarge, format!("the body is larger than {limit} bytes")));
    }
    Ok(kept.freeze())
}

/// What the body says. An empty one is `{}`, so that addresses without fields need none.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let value = if body.is_empty() { Value::Object(Map::new()) } else { strict(body)? };
    screen::check(&value).map_err(|refused| {
        let id = match refused.found {
            screen::Finding::CardNumber => ProblemId::CardNumber,
            screen::Finding::PaymentSecret => ProblemId::PaymentSecret,
            screen::Finding::Aadhaar => ProblemId::Aadhaar,
        };
        Problem::field(id, &refused.field, refused.found.problem(), refused.found.mend())
    })?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let field = if path == "." { String::new() } else { path };
        // serde's text for a wrong value repeats the value, which may be personal: only what it expected is passed on.
        let text = error.inner().to_string();
        let problem = match text.split_once(", expected ") {
            Some((what, expected)) if what.starts_with("invalid") => format!("is not {expected}"),
            _ => text,
        };
        Problem::field(ProblemId::BadBody, &field, problem, "see /docs for the fields and their types")
    })
}

fn strict(body: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(body).map_err(|_| Problem::new(ProblemId::BadJson, "the body is not UTF-8"))?;
    let path = Trail::default();
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Strict(&path).deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| match path.refusal.take() {
        Some((problem, mend)) => Problem::field(ProblemId::BadBody, &path.text(), problem, mend),
        None if error.to_string().contains("surrogate") || error.to_string().contains("hex escape") => Problem::field(
            ProblemId::BadBody,
            &path.text(),
            "holds half of a surrogate pair",
            "write the character in UTF-8, or both halves of its escape",
        ),
        None => {
            let place = format!("line {} column {}", error.line(), error.column());
            Problem::new(ProblemId::BadJson, format!("the body stops being JSON at {place}"))
        }
    })
}

/// Where the reader is, and why it stopped.
#[derive(Default)]
struct Trail {
    parts: RefCell<Vec<String>>,
    refusal: RefCell<Option<(&'static str, &'static str)>>,
}

impl Trail {
    fn text(&self) -> String {
        self.parts.borrow().join(".")
    }

    fn refuse<E: serde::de::Error>(&self, problem: &'static str, mend: &'static str) -> E {
        self.refusal.replace(Some((problem, mend)));
        E::custom(problem)
    }

    /// The trail keeps its last part when `read` fails: that is the place to name.
    fn inside<T, E: serde::de::Error>(&self, part: String, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        if self.parts.borrow().len() >= DEPTH_MAX {
            return Err(self.refuse("is nested too deeply", "nest at most 64 levels"));
        }
        self.parts.borrow_mut().push(part);
        let value = read()?;
        self.parts.borrow_mut().pop();
        Ok(value)
    }
}

#[derive(Clone, Copy)]
struct Strict<'t>(&'t Trail);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        if value.abs() >= WHOLE_MAX {
            return Err(self.0.refuse("has more digits than a JSON number keeps", "write it as a text"));
        }
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') {
            return Err(self.0.refuse("holds a NUL character, which Postgres cannot keep", "leave it out"));
        }
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = self.0.inside(list.len().to_string(), || items.next_element_seed(self))? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            let value = self.0.inside(name.clone(), || {
                if name.contains('\0') {
                    return Err(self.0.refuse("has a NUL character in its name", "leave it out"));
                }
                if map.contains_key(&name) {
                    return Err(self.0.refuse("stands there twice", "say it once"));
                }
                fields.next_value_seed(self)
            })?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// A body without fields: `{}` or nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only the reading is tested")]
    struct Order {
        kind: String,
        payload: Value,
    }

    fn problem(body: &str) -> String {
        let problem = parse::<Order>(body.as_bytes()).map(|_| ()).expect_err("refused");
        format!("{problem:?}")
    }

    #[test]
    fn each_bad_body_names_the_field() {
        for (body, id, field) in [
            ("{", "BadJson", ""),
            ("{\"kind\":1,\"payload\":{}}", "BadBody", "\"kind\""),
            ("{\"kind\":\"a\",\"payload\":{},\"extra\":1}", "BadBody", "extra"),
            ("{\"kind\":\"a\"}", "BadBody", "missing field `payload`"),
            ("{\"kind\":\"a\",\"kind\":\"b\",\"payload\":{}}", "BadBody", "\"kind\""),
            ("{\"kind\":\"a\",\"payload\":{\"x\":{\"y\":1,\"y\":2}}}", "BadBody", "\"payload.x.y\""),
            ("{\"kind\":\"a\",\"payload\":{\"name\":\"A\\u0000\"}}", "BadBody", "\"payload.name\""),
            ("{\"kind\":\"a\",\"payload\":{\"name\":\"\\ud83d\"}}", "BadBody", "\"payload.name\""),
            ("{\"kind\":\"a\",\"payload\":{\"name\":\"\\udc00\"}}", "BadBody", "\"payload.name\""),
            ("{\"kind\":\"a\",\"payload\":[1,123456789012345678901234567890]}", "BadBody", "\"payload.1\""),
            ("{\"kind\":\"a\",\"payload\":1e999}", "BadJson", ""),
            ("{\"kind\":\"a\",\"payload\":{}} x", "BadJson", ""),
            ("[]", "BadBody", ""),
        ] {
            let problem = problem(body);
            assert!(problem.contains(id) && problem.contains(field), "{body}: {problem}");
        }
        let deep = format!("{{\"kind\":\"a\",\"payload\":{}{}}}", "[".repeat(100), "]".repeat(100));
        assert!(problem(&deep).contains("nested"), "{}", problem(&deep));
    }

    #[test]
    fn a_wrong_value_is_not_repeated() {
        assert!(!problem("{\"kind\":919876543210,\"payload\":{}}").contains("919876543210"));
    }
}
