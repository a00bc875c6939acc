use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, de};

use super::model::{NewInvoice, RefusalId};

/// `invoice.issue`: checks a document, records it, and has it put on paper.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Issue {
    /// What a frontend hands over: the published schema is that of [`NewInvoice`].
    New(Box<NewInvoice>),
    /// What stays in the job once the document was refused: a retry reads it from our table and checks it again.
    Refused(RefusedForm),
}

/// Reference to a refused document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedForm {
    /// Row of `muneem.invoice_refusals`.
    pub refusal_id: RefusalId,
}

impl<'de> Deserialize<'de> for Issue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // By hand rather than untagged: the error must be that of the document, with its field.
        let value = serde_json::Value::deserialize(deserializer)?;
        if value.get("refusal_id").is_some() {
            serde_json::from_value(value).map(Self::Refused).map_err(de::Error::custom)
        } else {
            serde_json::from_value(value).map(Box::new).map(Self::New).map_err(de::Error::custom)
        }
    }
}

impl JsonSchema for Issue {
    fn schema_name() -> Cow<'static, str> {
        NewInvoice::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        NewInvoice::json_schema(generator)
    }
}
