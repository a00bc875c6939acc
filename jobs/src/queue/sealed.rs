//! Which payloads lie sealed, and how.

use serde_json::Value;
use sqlx::PgConnection;
use zeroize::Zeroizing;

use crate::{
    id::JobId,
    people::BusinessId,
    vault::{Cell, Class, Error, Key, SealedColumn, Unreadable, Vault},
};

/// What the queue seals.
pub const SEALED: &[SealedColumn] = &[
    SealedColumn::of_row(TABLE, COLUMN, JOB),
    SealedColumn { cell_table: TABLE, ..SealedColumn::of_row("muneem.queue_dead", COLUMN, JOB) },
];

const TABLE: &str = "muneem.queue_jobs";
const COLUMN: &str = "payload_sealed";
const JOB: Key = Key { column: "job_id", kind: "bigint" };

/// A payload keeps its cell when the job goes to the dead letters and back, so that it goes there unopened.
fn cell(business: BusinessId, row: &str) -> Cell<'_> {
    Cell { business_id: business, table: TABLE, column: COLUMN, row }
}

/// Seals the JSON text of a job's payload.
pub(super) async fn seal(
    db: &mut PgConnection,
    vault: &Vault,
    (business, job): (BusinessId, JobId),
    payload: &str,
) -> Result<Vec<u8>, Error> {
    vault.seal(db, Class::Payload, &cell(business, &job.0.to_string()), payload.as_bytes()).await
}

/// Opens what [`seal`] sealed.
pub(super) async fn open(
    db: &mut PgConnection,
    vault: &Vault,
    (business, job): (BusinessId, JobId),
    sealed: &[u8],
) -> Result<Zeroizing<String>, Error> {
    let row = job.0.to_string();
    let cell = cell(business, &row);
    let mut plain = vault.open(db, &cell, sealed).await?;
    let text = String::from_utf8(std::mem::take(&mut *plain));
    // Only what this program sealed opens, and that was text.
    text.map(Zeroizing::new)
        .map_err(|_| Error::Unreadable { column: format!("{}.{}", cell.table, cell.column), why: Unreadable::Tag })
}

/// Deeper than any payload of ours; a schema that refers to itself is taken for one with room for anything.
const MAX_DEPTH: usize = 16;

/// Whether a schema has room for nothing but references: UUIDs, whole numbers of at most 32 bits, truth values,
/// instants, and words of a closed list.
pub(super) fn holds_references_alone(schema: &Value) -> bool {
    only_references(schema, schema, 0)
}

fn only_references(root: &Value, schema: &Value, depth: usize) -> bool {
    let within = |schema| depth < MAX_DEPTH && only_references(root, schema, depth + 1);
    let Some(fields) = schema.as_object() else {
        // `true` takes anything, `false` nothing.
        return *schema == Value::Bool(false);
    };
    if fields.contains_key("const") || fields.contains_key("enum") {
        return true;
    }
    if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
        return target.strip_prefix('#').and_then(|at| root.pointer(at)).is_some_and(within);
    }
    if let Some(all) = ["anyOf", "oneOf", "allOf"].iter().find_map(|word| fields.get(*word)?.as_array()) {
        return all.iter().all(within);
    }
    let types: Vec<&str> = match fields.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => return false,
    };
    types.iter().all(|name| match *name {
        "null" | "boolean" => true,
        "string" => {
            ["uuid", "date", "date-time"].map(Value::from).contains(fields.get("format").unwrap_or(&Value::Null))
        }
        "integer" => {
            let format = fields.get("format").and_then(Value::as_str);
            matches!(format, Some("int8" | "uint8" | "int16" | "uint16" | "int32" | "uint32"))
        }
        "array" => fields.get("items").is_some_and(within),
        "object" => {
            let closed = fields.get("additionalProperties").is_some_and(within);
            let named = fields.get("properties").and_then(Value::as_object);
            closed && named.into_iter().flat_map(|named| named.values()).all(within)
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_told_from_what_may_be_personal() {
        let object = |field: Value| {
            json!({ "type": "object", "properties": { "field": field }, "additionalProperties": false,
                "$defs": { "Id": { "type": "string", "format": "uuid" }, "Loop": { "$ref": "#/$defs/Loop" } } })
        };
        for reference in [
            json!({ "type": "string", "format": "uuid" }),
            json!({ "type": ["integer", "null"], "format": "uint32" }),
            json!({ "$ref": "#/$defs/Id" }),
            json!({ "anyOf": [{ "$ref": "#/$defs/Id" }, { "type": "null" }] }),
            json!({ "type": "string", "enum": ["one", "two"] }),
            json!({ "type": "array", "items": { "type": "string", "format": "date" } }),
        ] {
            assert!(holds_references_alone(&object(reference.clone())), "{reference}");
        }
        for personal in [
            json!({ "type": "string" }),
            json!({ "type": "integer", "format": "int64" }),
            json!({ "type": "integer" }),
            json!({ "type": "number" }),
            json!({ "type": "array" }),
            json!({ "type": "object" }),
            json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            json!({ "anyOf": [{ "$ref": "#/$defs/Id" }, { "type": "string" }] }),
            json!({ "$ref": "#/$defs/Loop" }),
            json!({ "$ref": "#/$defs/Nobody" }),
            json!({}),
            json!(true),
        ] {
            assert!(!holds_references_alone(&object(personal.clone())), "{personal}");
        }
        // Fields that nobody named may hold anything.
        assert!(!holds_references_alone(&json!({ "type": "object", "properties": {} })));
    }

    /// Reviewed: a kind that says `references` against its schema stands here with its reason.
    #[test]
    fn kinds_that_lie_in_clear_are_those_without_room_for_a_person() {
        let clear = crate::kinds().into_iter().filter(|kind| !kind.seals);
        let against_its_schema: Vec<_> = clear
            .filter(|kind| kind.settings.open || !holds_references_alone(&kind.schema()))
            .map(|kind| kind.name)
            .collect();
        assert_eq!(against_its_schema, Vec::<&str>::new());
        assert!(crate::kinds().iter().any(|kind| kind.name == "invoice.issue" && kind.seals));
    }

    /// A slot key is a digest without a key, which tells a phone number to whoever tries them all.
    #[test]
    fn no_kind_is_serial_by_what_may_be_personal() {
        for kind in crate::kinds() {
            let super::super::Slots::SerialBy(field) = kind.settings.slots else { continue };
            let schema = kind.schema();
            let field_schema = &schema["properties"][field];
            assert!(only_references(&schema, field_schema, 0), "{}: {field}", kind.name);
        }
    }
}
