use chrono::NaiveDate;
use rust_decimal::Decimal;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::people::BusinessId;

crate::id_type! {
    /// One document of ours: tax invoice, bill of supply or credit note.
    InvoiceId
}

crate::id_type! {
    /// A document that was refused, kept until somebody has looked at it.
    RefusalId
}

/// Shows the name of the type and none of what it holds: it holds personal values.
macro_rules! redacted {
    ($($name:ident),+) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        })+
    };
}

redacted!(NewInvoice, Invoice, Supplier, Buyer, Address, Line, EInvoice, WhatsAppDelivery);

/// An exact decimal, not negative. On the wire always a JSON string such as `"14999.00"`: a JSON number would have gone
/// through a binary float in half of all languages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exact(pub Decimal);

impl Exact {
    /// Digits before the point that are accepted.
    const WHOLE_DIGITS: usize = 12;
    /// Digits after the point that are accepted.
    const FRACTION_DIGITS: usize = 6;

    fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str, most: usize| (1..=most).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole, Self::WHOLE_DIGITS) || !digits(fraction, Self::FRACTION_DIGITS) {
            return None;
        }
        text.parse().ok().map(Self)
    }
}

impl From<Decimal> for Exact {
    fn from(value: Decimal) -> Self {
        Self(value)
    }
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.normalize())
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl de::Visitor<'_> for Text {
            type Value = Exact;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a decimal as a JSON string such as \"14999.00\", not negative, at most 6 decimals")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Exact, E> {
                // The text itself is not repeated: what somebody wrote into the wrong field may be personal.
                Exact::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Other("another string"), &self))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Exact {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Exact".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Exact decimal as a string, not negative: \"14999.00\".",
            "pattern": "^[0-9]{1,12}(\\.[0-9]{1,6})?$",
        })
    }
}

/// What a frontend hands over: the document, and where it goes.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInvoice {
    /// The whole document.
    pub invoice: Invoice,
    /// Where to send it once it is issued; left out: it is kept, and fetched over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<Deliver>,
}

/// Where a document goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deliver {
    /// By WhatsApp, as a document with a short text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whatsapp: Option<WhatsAppDelivery>,
}

/// One WhatsApp number and the language she reads.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhatsAppDelivery {
    /// Number in E.164: `+919876543210`.
    #[schemars(regex(pattern = r"^\+[1-9][0-9]{7,14}$"))]
    pub to: String,
    /// Language that she reads: `en` (the default), `hi`, `ta` …; where the words are not there in it, they come in the
    /// next that she most likely reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
}

/// Which document it is. Each has a series of numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Kind {
    /// CGST Act s.31(1), CGST Rules r.46.
    TaxInvoice,
    /// Exempt supply or composition dealer: CGST Act s.31(3)(c), r.49. Carries no tax.
    BillOfSupply,
    /// CGST Act s.34(1), r.53(1A). Amounts are positive: what is credited.
    CreditNote,
}

impl Kind {
    /// The name used on the wire and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TaxInvoice => "tax_invoice",
            Self::BillOfSupply => "bill_of_supply",
            Self::CreditNote => "credit_note",
        }
    }
}

/// A tax invoice, bill of supply or credit note with everything that goes onto it. Totals and taxes are worked out
/// here; the frontend may say the `total` it expects.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invoice {
    /// `tax_invoice`, `bill_of_supply` or `credit_note`.
    pub kind: Kind,
    /// Consecutive serial number: at most 16 letters, digits, `-` and `/`, unique for the financial year (r.46(b)).
    /// Upper and lower case are the same number.
    #[schemars(length(min = 1, max = 16))]
    pub number: String,
    /// Date of issue, `2026-11-23`, in India.
    pub issued_on: NaiveDate,
    /// Who sells.
    pub supplier: Supplier,
    /// Who buys. Left out for a walk-in who gives no name and buys for less than ₹50,000 before tax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<Buyer>,
    /// Where the goods go, when that is not the buyer's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_address: Option<Address>,
    /// State code of the place of supply. Left out, it is worked out from the addresses; see the module.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place_of_supply: Option<String>,
    /// The recipient pays the tax (CGST Act s.9(3) or (4)): the tax is shown and not part of the total.
    #[serde(default, skip_serializing_if = "is_false")]
    pub reverse_charge: bool,
    /// Supply to an SEZ or export: always inter-State.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_rated: Option<ZeroRated>,
    /// Sold through an e-commerce operator or as an online service: the buyer's State is needed at any value.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sold_online: bool,
    /// What is sold or credited, in the order it is printed.
    #[schemars(length(min = 1, max = 500))]
    pub lines: Vec<Line>,
    /// Credit note: the invoices it corrects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub original_invoices: Vec<OriginalInvoice>,
    /// Credit note: why, in a few words that are printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Total in rupees that the frontend showed the buyer. A different result here is an error, not a correction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Exact>,
    /// UPI id (`sharma@okbank`) for a QR code to pay by. Leave it out when the bill is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upi_id: Option<String>,
    /// What the invoice registration portal returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub e_invoice: Option<EInvoice>,
    /// Words at the foot: warranty, returns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Who sells.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Supplier {
    /// Name as registered.
    pub legal_name: String,
    /// Name over the door, when it differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trade_name: Option<String>,
    /// GSTIN, 15 characters in capitals.
    pub gstin: String,
    /// Place of business that supplies, in the State of the GSTIN.
    pub address: Address,
    /// Printed for questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Printed for questions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Aggregate turnover of the preceding financial year: decides the digits of HSN codes.
    #[serde(default)]
    pub turnover: Turnover,
    /// Whether e-invoicing binds this supplier (turnover above ₹5 crore in any year from 2017-18).
    #[serde(default)]
    pub e_invoicing: EInvoicing,
    /// Pays tax by composition (CGST Act s.10): only bills of supply.
    #[serde(default, skip_serializing_if = "is_false")]
    pub composition: bool,
    /// Is a unit or developer of a Special Economic Zone: every supply is inter-State.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sez: bool,
}

/// Aggregate turnover of the preceding financial year.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Turnover {
    /// At most ₹5 crore.
    #[default]
    #[serde(rename = "up_to_5_crore")]
    UpTo5Crore,
    /// More.
    #[serde(rename = "above_5_crore")]
    Above5Crore,
}

/// Whether rule 48(4) binds the supplier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EInvoicing {
    /// Below the threshold.
    #[default]
    NotRequired,
    /// Sales to registered buyers, exports and supplies to SEZ need an IRN.
    Required,
    /// Above the threshold, of an exempt class: the declaration of r.46(s) is printed.
    Exempt,
}

/// Supplies that are zero-rated (IGST Act s.16), with or without paying the tax first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ZeroRated {
    /// Export, integrated tax paid.
    ExportWithTax,
    /// Export under bond or letter of undertaking.
    ExportUnderLut,
    /// To an SEZ unit or developer, integrated tax paid.
    SezWithTax,
    /// To an SEZ unit or developer under bond or letter of undertaking.
    SezUnderLut,
}

/// Who buys.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Buyer {
    /// Name, in any script of India.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// GSTIN, when registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gstin: Option<String>,
    /// Unique Identity Number of an embassy or UN body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uin: Option<String>,
    /// Address. For an unregistered buyer of goods, the State recorded here is the place of supply
    /// (IGST Act s.10(1)(ca)): record it on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

impl Buyer {
    /// Registered under GST, or holder of a UIN.
    pub fn is_registered(&self) -> bool {
        self.gstin.is_some() || self.uin.is_some()
    }
}

/// A postal address. The State alone is an address too, where the law asks for no more.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// House, street, locality; a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lines: Vec<String>,
    /// City, town or village.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// PIN code, six digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pin: Option<String>,
    /// Country, when it lies outside India (State 96).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// GST State code: `27` is Maharashtra; `96` outside India.
    #[schemars(regex(pattern = "^[0-9]{2}$"))]
    pub state: String,
}

/// One line of a document.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// What it is, as the buyer knows it.
    pub description: String,
    /// HSN of goods or SAC of services (it starts with 99).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hsn: Option<String>,
    /// How many, at most 3 decimals.
    pub quantity: Exact,
    /// Unique Quantity Code: `NOS`, `PCS`, `KGS`... Needed for goods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Rupees for one unit, before tax; up to 6 decimals, so that a price with tax inside can be taken apart.
    pub unit_price: Exact,
    /// Rupees off this line, before tax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discount: Option<Exact>,
    /// GST in percent: `"18"` means 9 CGST and 9 SGST, or 18 IGST. `"0"` for nil rated. None on a bill of supply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gst_rate: Option<Exact>,
    /// Compensation cess in percent of the taxable value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cess_rate: Option<Exact>,
    /// IMEIs of the phones sold on this line; 15 digits each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imeis: Vec<String>,
}

/// An invoice that a credit note corrects (r.53(1A)(g)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OriginalInvoice {
    /// Its serial number.
    pub number: String,
    /// Its date.
    pub issued_on: NaiveDate,
}

/// What the invoice registration portal returned (r.48(4)). Stored and printed as it is, never made up.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EInvoice {
    /// Invoice Reference Number, 64 hexadecimal digits.
    pub irn: String,
    /// Acknowledgement number.
    pub ack_number: String,
    /// Day of the acknowledgement.
    pub ack_on: NaiveDate,
    /// Content of the signed QR code.
    pub signed_qr: String,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference to skip_serializing_if")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// How far a document has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum State {
    /// Checked and recorded; the PDF is being made.
    Received,
    /// The PDF exists and is on its way, if it goes anywhere.
    Issued,
}

/// What the list of documents and one document's page show, without anybody's particulars.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Recorded {
    /// Whose it is.
    #[serde(skip)]
    pub business: BusinessId,
    /// Its id.
    pub invoice_id: InvoiceId,
    /// Which document.
    pub kind: Kind,
    /// Its serial number as printed.
    pub number: String,
    /// Financial year of its date: `2026-27`.
    pub financial_year: String,
    /// Its date.
    pub issued_on: NaiveDate,
    /// How far it has come.
    pub state: State,
    /// Value before tax, in rupees.
    pub taxable: Exact,
    /// All taxes, in rupees.
    pub tax: Exact,
    /// What is to be paid or credited, in rupees.
    pub total: Exact,
    /// SHA-256 of the PDF, in hexadecimal, once it exists.
    pub pdf_digest: Option<String>,
    /// The law keeps it at least until this day.
    pub keep_until: NaiveDate,
}
