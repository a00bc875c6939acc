//! Documents of invented people for tests.

use chrono::NaiveDate;
use serde_json::{Value, json};

use super::model::{Invoice, NewInvoice};

/// The day on which the samples are issued.
pub(super) fn today() -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, 23).expect("a day")
}

/// A phone sold over the counter in Pune to a buyer who gave her name in Hindi.
pub(super) fn phone() -> Value {
    json!({
        "kind": "tax_invoice",
        "number": "SM/26-27/00042",
        "issued_on": "2026-11-23",
        "supplier": {
            "legal_name": "Sharma Mobiles Private Limited",
            "trade_name": "Sharma Mobiles",
            "gstin": "27ZZZPZ0000Z1ZA",
            "address": { "lines": ["14 Laxmi Road", "Shaniwar Peth"], "city": "Pune", "pin": "411030", "state": "27" },
            "phone": "+91 20 5550 0142",
            "email": "bills@sharma-mobiles.example"
        },
        "buyer": {
            "name": "आशा वर्मा",
            "address": { "lines": ["Flat 3, सरोज सोसायटी"], "city": "Pune", "pin": "411038", "state": "27" }
        },
        "lines": [{
            "description": "Nokia G42 5G, 6 GB / 128 GB, purple",
            "hsn": "8517",
            "quantity": "1",
            "unit": "NOS",
            "unit_price": "12711.016949",
            "gst_rate": "18",
            "imeis": ["490154203237518", "352099001761481"]
        }],
        "total": "14999.00",
        "upi_id": "sharma.mobiles@okbank"
    })
}

/// Four lines with a discount, to a registered buyer in another State, e-invoiced.
pub(super) fn interstate() -> Value {
    let mut value = phone();
    value["number"] = json!("SM/26-27/00043");
    value["supplier"]["turnover"] = json!("above_5_crore");
    value["supplier"]["e_invoicing"] = json!("required");
    value["buyer"] = json!({
        "name": "Kaveri Retail LLP",
        "gstin": "29ABCDE1234F1ZW",
        "address": { "lines": ["88 MG Road"], "city": "Bengaluru", "pin": "560001", "state": "29" }
    });
    value["delivery_address"] =
        json!({ "lines": ["Warehouse 7, Hosur Road"], "city": "Bengaluru", "pin": "560068", "state": "29" });
    value["lines"] = json!([
        { "description": "Nokia G42 5G, 6 GB / 128 GB, purple", "hsn": "851713", "quantity": "2", "unit": "NOS",
          "unit_price": "12711.02", "discount": "500", "gst_rate": "18",
          "imeis": ["490154203237518", "352099001761481", "356938035643809", "860123045678900"] },
        { "description": "Tempered glass, edge to edge", "hsn": "700719", "quantity": "10", "unit": "PCS",
          "unit_price": "84.75", "gst_rate": "18" },
        { "description": "Printed user guide, मराठी", "hsn": "490199", "quantity": "2", "unit": "NOS",
          "unit_price": "40", "gst_rate": "5" },
        { "description": "Screen fitting at the counter", "hsn": "998716", "quantity": "2", "unit_price": "150",
          "gst_rate": "18" }
    ]);
    value["e_invoice"] = json!({
        "irn": "3f2a".repeat(16),
        "ack_number": "112610009876543",
        "ack_on": "2026-11-23",
        "signed_qr": format!("eyJhbGciOiJSUzI1NiJ9.{}.c2lnbmF0dXJl", "eyJTZWxsZXJHc3RpbiI6".repeat(30))
    });
    value.as_object_mut().expect("an object").remove("total");
    value.as_object_mut().expect("an object").remove("upi_id");
    value
}

/// Exempt goods: no tax.
pub(super) fn bill_of_supply() -> Value {
    let mut value = phone();
    value["kind"] = json!("bill_of_supply");
    value["number"] = json!("BS/26-27/00007");
    value["lines"] = json!([
        { "description": "Unbranded rice, loose", "hsn": "1006", "quantity": "12.5", "unit": "KGS", "unit_price": "48.40" },
        { "description": "Fresh coconuts", "hsn": "0801", "quantity": "6", "unit": "NOS", "unit_price": "32" }
    ]);
    value["total"] = json!("797");
    value
}

/// The phone comes back.
pub(super) fn credit_note() -> Value {
    let mut value = phone();
    value["kind"] = json!("credit_note");
    value["number"] = json!("CN/26-27/00003");
    value["original_invoices"] = json!([{ "number": "SM/26-27/00031", "issued_on": "2026-11-09" }]);
    value["reason"] = json!("Phone returned within 14 days");
    value.as_object_mut().expect("an object").remove("upi_id");
    value
}

/// Forty lines of accessories: several pages.
pub(super) fn long() -> Value {
    let mut value = phone();
    value["number"] = json!("SM/26-27/00044");
    let lines: Vec<_> = (1..=40)
        .map(|n| {
            json!({
                "description": format!("Silicone cover no. {n}, assorted colours, for 6.5-inch phones"),
                "hsn": "3926", "quantity": n.to_string(), "unit": "PCS", "unit_price": format!("{}.{:02}", 40 + n, n),
                "gst_rate": if n % 4 == 0 { "5" } else { "18" }
            })
        })
        .collect();
    value["lines"] = json!(lines);
    value.as_object_mut().expect("an object").remove("total");
    value
}

pub(super) fn invoice(value: &Value) -> Invoice {
    serde_json::from_value(value.clone()).expect("a document by the schema")
}

pub(super) fn new_invoice(value: &Value) -> NewInvoice {
    NewInvoice { invoice: invoice(value), deliver: None }
}
