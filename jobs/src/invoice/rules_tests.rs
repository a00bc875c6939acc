use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::{
    issue::Issue,
    rules::{Problem, check, languages_there_are, words_for},
    samples,
    tax::{Amounts, Heads},
};
use crate::messaging::{
    Language,
    template::{self, Library},
};

fn amounts(value: &Value) -> Amounts {
    check(&samples::new_invoice(value), samples::today()).expect("a sound document")
}

fn problems(value: &Value) -> Vec<Problem> {
    check(&samples::new_invoice(value), samples::today()).expect_err("a document with problems")
}

/// Sets what a JSON pointer names, also where nothing is yet; `null` removes it.
fn with(mut value: Value, changes: &[(&str, Value)]) -> Value {
    for (pointer, new) in changes {
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let parent = value.pointer_mut(parent).expect("a parent");
        match parent {
            Value::Array(items) => items[name.parse::<usize>().expect("an index")] = new.clone(),
            Value::Object(fields) if new.is_null() => drop(fields.remove(name)),
            _ => parent[name] = new.clone(),
        }
    }
    value
}

fn decimal(text: &str) -> Decimal {
    text.parse().expect("a decimal")
}

#[test]
fn samples_are_sound() {
    for value in
        [samples::phone(), samples::interstate(), samples::bill_of_supply(), samples::credit_note(), samples::long()]
    {
        amounts(&value);
    }
}

#[test]
fn each_wrong_field_is_named_with_its_mend() {
    let phone = samples::phone;
    let cases = [
        ("serial too long", with(phone(), &[("/number", json!("SHARMA/2026-27/000042"))])),
        ("serial with a space", with(phone(), &[("/number", json!("SM 42"))])),
        ("tomorrow", with(phone(), &[("/issued_on", json!("2026-11-24"))])),
        ("year of two digits", with(phone(), &[("/issued_on", json!("0026-11-24"))])),
        ("gstin", with(phone(), &[("/supplier/gstin", json!("27ZZZPZ0000Z1ZB"))])),
        ("gstin of another state", with(phone(), &[("/supplier/gstin", json!("29ZZZCZ9999Z1ZF"))])),
        ("no street", with(phone(), &[("/supplier/address/lines", json!([]))])),
        ("pin", with(phone(), &[("/supplier/address/pin", json!("41103"))])),
        ("unknown state", with(phone(), &[("/buyer/address/state", json!("39"))])),
        ("legacy state", with(phone(), &[("/buyer/address/state", json!("28")), ("/total", json!(null))])),
        ("emoji", with(phone(), &[("/lines/0/description", json!("Phone 📱"))])),
        ("bidi", with(phone(), &[("/buyer/name", json!("Asha\u{202e}amreV"))])),
        ("newline", with(phone(), &[("/note", json!("a\nb"))])),
        ("hsn", with(phone(), &[("/lines/0/hsn", json!("85171"))])),
        ("hsn above 5 crore", with(phone(), &[("/supplier/turnover", json!("above_5_crore"))])),
        (
            "no hsn for a registered buyer",
            with(phone(), &[("/buyer/gstin", json!("27AAPFU0939F1ZV")), ("/lines/0/hsn", json!(null))]),
        ),
        ("unit", with(phone(), &[("/lines/0/unit", json!("piece"))])),
        ("no unit", with(phone(), &[("/lines/0/unit", json!(null))])),
        ("no quantity", with(phone(), &[("/lines/0/quantity", json!("0"))])),
        ("discount", with(phone(), &[("/lines/0/discount", json!("20000"))])),
        ("half rate", with(phone(), &[("/lines/0/gst_rate", json!("9"))])),
        ("no rate", with(phone(), &[("/lines/0/gst_rate", json!(null))])),
        (
            "40 before its time",
            with(phone(), &[("/lines/0/gst_rate", json!("40")), ("/issued_on", json!("2025-09-21"))]),
        ),
        ("imei", with(phone(), &[("/lines/0/imeis/0", json!("490154203237519"))])),
        ("imei of zeroes", with(phone(), &[("/lines/0/imeis/0", json!("000000000000000"))])),
        ("card", with(phone(), &[("/lines/0/imeis/0", json!("378282246310005"))])),
        ("imei twice", with(phone(), &[("/lines/0/imeis/0", json!("352099001761481"))])),
        ("upi", with(phone(), &[("/upi_id", json!("sharma@okbank&am=1"))])),
        ("place", with(phone(), &[("/place_of_supply", json!("29"))])),
        ("reverse charge", with(phone(), &[("/reverse_charge", json!(true)), ("/total", json!(null))])),
        ("total", with(phone(), &[("/total", json!("15000"))])),
        ("too much", with(phone(), &[("/lines/0/unit_price", json!("999999999999"))])),
        ("no lines", with(phone(), &[("/lines", json!([]))])),
        ("rate on a bill of supply", with(samples::bill_of_supply(), &[("/lines/0/gst_rate", json!("0"))])),
        ("composition", with(phone(), &[("/supplier/composition", json!(true))])),
        ("credit note of nothing", with(samples::credit_note(), &[("/original_invoices", json!([]))])),
        (
            "credit note too late",
            with(samples::credit_note(), &[("/original_invoices/0/issued_on", json!("2025-03-31"))]),
        ),
        (
            "credit note before the invoice",
            with(samples::credit_note(), &[("/original_invoices/0/issued_on", json!("2026-11-24"))]),
        ),
        ("credit note to nowhere", with(samples::credit_note(), &[("/buyer", json!(null))])),
        (
            "original of an invoice",
            with(phone(), &[("/original_invoices", json!([{ "number": "1", "issued_on": "2026-11-01" }]))]),
        ),
        ("no irn", with(samples::interstate(), &[("/e_invoice", json!(null))])),
        ("irn", with(samples::interstate(), &[("/e_invoice/irn", json!("abc"))])),
        ("serial for the portal", with(samples::interstate(), &[("/number", json!("0042"))])),
        ("online without state", with(phone(), &[("/buyer/address", json!(null)), ("/sold_online", json!(true))])),
        ("export to India", with(phone(), &[("/zero_rated", json!("export_with_tax")), ("/total", json!(null))])),
        ("country in India", with(phone(), &[("/buyer/address/country", json!("Nepal"))])),
        ("abroad", with(phone(), &[("/buyer/address/state", json!("96")), ("/total", json!(null))])),
    ];
    let shown: Vec<_> = cases
        .iter()
        .map(|(name, value)| {
            let lines: Vec<_> = problems(value).iter().map(ToString::to_string).collect();
            format!("{name}\n    {}", lines.join("\n    "))
        })
        .collect();
    insta::assert_snapshot!(shown.join("\n"));
}

#[test]
fn all_problems_are_told_at_once() {
    let value = with(
        samples::phone(),
        &[
            ("/number", json!("")),
            ("/supplier/gstin", json!("x")),
            ("/lines/0/hsn", json!("1")),
            ("/lines/0/imeis/1", json!("1")),
        ],
    );
    let fields: Vec<_> = problems(&value).into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["number", "supplier.gstin", "lines[0].hsn", "lines[0].imeis[1]"]);
}

#[test]
fn delivery_needs_a_mobile_number() {
    for (to, right) in [
        ("+919876543210", true),
        ("+971501234567", true),
        ("+14155550123", false),
        ("9876543210", false),
        ("919876543210", false),
        ("+91987654321", false),
        ("+911234567890", false),
        ("+91 98765 43210", false),
    ] {
        let mut new = samples::new_invoice(&samples::phone());
        new.deliver = serde_json::from_value(json!({ "whatsapp": { "to": to } })).expect("a delivery");
        assert_eq!(check(&new, samples::today()).is_ok(), right, "{to}");
    }
}

#[test]
fn a_bill_goes_out_in_every_language_that_somebody_may_choose_and_its_words_fall_back() {
    let with = |language: &str| {
        let mut new = samples::new_invoice(&samples::phone());
        let to = json!({ "to": "+919876543210", "language": language });
        new.deliver = serde_json::from_value(json!({ "whatsapp": to })).expect("a delivery");
        check(&new, samples::today())
    };
    for language in Language::all() {
        assert!(with(language.as_str()).is_ok(), "{}", language.english_name());
    }
    for language in ["xx", "", "Hindi", "hi-IN", "en_US", "HI", "hi\n"] {
        let problems = with(language).expect_err(language);
        let [problem] = problems.as_slice() else { panic!("{language}: {problems:?}") };
        assert_eq!(problem.field, "deliver.whatsapp.language", "{language}");
        assert!(problem.mend.starts_with("the bill's words are there in en, hi; for as, bn, brx"), "{}", problem.mend);
    }
    let words = |language: &str| words_for(template::library(), language).map(|words| words.language.as_str());
    assert_eq!([words("hi"), words("mr"), words("ta"), words("xx")], [Some("hi"), Some("hi"), Some("en"), None]);
}

#[test]
fn words_that_an_installation_adds_are_taken_for_its_bills() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("tax_invoice/ta");
    std::fs::create_dir_all(&folder).expect("made");
    let english = include_str!("../../../templates/messaging/tax_invoice/en/whatsapp.toml");
    std::fs::write(folder.join("whatsapp.toml"), english.replace("language = \"en\"", "language = \"ta\""))
        .expect("written");
    let library = Library::load(Some(dir.path())).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(words_for(&library, "ta").map(|words| words.language.as_str()), Some("ta"));
    assert!(languages_there_are(&library).starts_with("the bill's words are there in en, hi, ta; for as, bn"));
}

#[test]
fn recipient_is_named_from_fifty_thousand_rupees_on() {
    let sold_for = |price: &str| {
        with(
            samples::phone(),
            &[("/buyer", json!(null)), ("/total", json!(null)), ("/lines/0/unit_price", json!(price))],
        )
    };
    amounts(&sold_for("49999.99"));
    let fields: Vec<_> = problems(&sold_for("50000")).into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["buyer"]);
    let state_only = with(sold_for("50000"), &[("/buyer", json!({ "name": "Asha", "address": { "state": "27" } }))]);
    let fields: Vec<_> = problems(&state_only).into_iter().map(|problem| problem.field).collect();
    assert_eq!(fields, ["buyer.address.lines", "buyer.address.city"]);
}

#[test]
fn tax_is_split_by_place_of_supply() {
    let to = |supplier: &str, gstin: &str, buyer: Value| {
        let value = with(
            samples::phone(),
            &[
                ("/supplier/address/state", json!(supplier)),
                ("/supplier/gstin", json!(gstin)),
                ("/buyer", buyer),
                ("/total", json!(null)),
            ],
        );
        let amounts = amounts(&value);
        (amounts.place_of_supply, amounts.heads)
    };
    let pune = |buyer| to("27", "27ZZZPZ0000Z1ZA", buyer);
    let unregistered = |state: &str| json!({ "address": { "state": state } });
    assert_eq!(pune(json!(null)), ("27".into(), Heads::CentralAndState));
    assert_eq!(pune(unregistered("27")), ("27".into(), Heads::CentralAndState));
    // IGST Act s.10(1)(ca): the State written on the invoice decides, also over the counter.
    assert_eq!(pune(unregistered("29")), ("29".into(), Heads::Integrated));
    let delhi = to("07", "07ZZZFZ1234Z1ZJ", unregistered("07"));
    assert_eq!(delhi, ("07".into(), Heads::CentralAndState), "Delhi has a legislature");
    let chandigarh = super::numbers::whole_gstin("04ZZZPZ0000Z1Z");
    assert_eq!(to("04", &chandigarh, json!(null)), ("04".into(), Heads::CentralAndTerritory));
}

#[test]
fn goods_follow_the_delivery_and_services_the_recipient() {
    let place = |changes: &[(&str, Value)]| {
        let value = with(samples::phone(), &[("/total", json!(null))]);
        amounts(&with(value, changes)).place_of_supply
    };
    let goa = json!({ "lines": ["Beach Road"], "city": "Panaji", "state": "30" });
    let pune = json!({ "lines": ["FC Road"], "city": "Pune", "state": "27" });
    let firm = json!({ "name": "Firm", "gstin": "27AAPFU0939F1ZV", "address": pune });
    assert_eq!(place(&[("/delivery_address", goa.clone())]), "30", "unregistered: delivery before billing");
    assert_eq!(place(&[("/buyer", firm.clone()), ("/delivery_address", goa.clone())]), "30", "where movement ends");
    assert_eq!(
        place(&[("/buyer", firm.clone()), ("/delivery_address", goa.clone()), ("/place_of_supply", json!("27"))]),
        "27",
        "bill to, ship to: the document says it"
    );
    let service = ("/lines/0/hsn", json!("9987"));
    assert_eq!(place(&[service.clone(), ("/buyer", firm), ("/delivery_address", goa)]), "27", "service: recipient");
    assert_eq!(place(&[service.clone(), ("/buyer", json!(null))]), "27", "service, no address: supplier");
    assert_eq!(place(&[service, ("/place_of_supply", json!("29"))]), "29", "service with a rule of its own");
}

#[test]
fn sez_and_exports_are_inter_state() {
    let sez = with(
        samples::phone(),
        &[("/total", json!(null)), ("/buyer/gstin", json!("27AAPFU0939F1ZV")), ("/zero_rated", json!("sez_with_tax"))],
    );
    assert_eq!(amounts(&sez).heads, Heads::Integrated);
    let export = with(
        samples::phone(),
        &[
            ("/total", json!("12711")),
            (
                "/buyer/address",
                json!({ "lines": ["1 High Street"], "city": "Leeds", "country": "United Kingdom", "state": "96" }),
            ),
            ("/zero_rated", json!("export_under_lut")),
            ("/lines/0/hsn", json!("85171300")),
            ("/lines/0/gst_rate", json!("0")),
        ],
    );
    assert_eq!(amounts(&export).place_of_supply, "96");
}

#[test]
fn each_head_is_rounded_half_up_and_the_total_to_the_rupee() {
    let sold_for = |price: &str, rate: &str| {
        amounts(&with(
            samples::phone(),
            &[("/total", json!(null)), ("/lines/0/unit_price", json!(price)), ("/lines/0/gst_rate", json!(rate))],
        ))
    };
    // 18 % of 0.25 is 0.045; each half is 0.0225 -> 0.02, and never half of a rounded 0.05.
    let tiny = sold_for("0.25", "18");
    assert_eq!((tiny.tax.cgst, tiny.tax.sgst), (decimal("0.02"), decimal("0.02")));
    // 2.5 % of 101.00 is 2.525 -> 2.53 for each head.
    let five = sold_for("101", "5");
    assert_eq!((five.tax.cgst, five.tax.sgst, five.total), (decimal("2.53"), decimal("2.53"), decimal("106")));
    assert_eq!(five.round_off, decimal("-0.06"));
    let half = sold_for("0.50", "0");
    assert_eq!((half.total, half.round_off), (decimal("1"), decimal("0.50")), "50 paise go up");
    let less = sold_for("100.49", "0");
    assert_eq!((less.total, less.round_off), (decimal("100"), decimal("-0.49")));
}

#[test]
fn reverse_charge_is_shown_and_not_charged() {
    let value = with(samples::interstate(), &[("/reverse_charge", json!(true))]);
    let amounts = amounts(&value);
    assert!(amounts.tax.igst > Decimal::ZERO);
    assert_eq!(amounts.total, amounts.taxable + amounts.round_off);
}

#[test]
fn decimals_are_strings_and_nothing_else() {
    for (quantity, right) in [
        (json!("1"), true),
        (json!("1.250"), true),
        (json!(1), false),
        (json!(1.25), false),
        (json!("-1"), false),
        (json!("1e3"), false),
        (json!("1,000"), false),
        (json!(" 1"), false),
        (json!(""), false),
        (json!("1."), false),
        (json!(".5"), false),
        (json!("१"), false),
        (json!("1234567890123"), false),
    ] {
        let value = with(samples::phone(), &[("/lines/0/quantity", quantity.clone())]);
        let parsed = serde_json::from_value::<super::Invoice>(value);
        assert_eq!(parsed.is_ok(), right, "{quantity}");
    }
}

#[test]
fn payload_off_schema_is_refused_by_name() {
    for (payload, field) in [
        (json!({}), "payload"),
        (json!({ "invoice": samples::phone(), "deliver_to": 1 }), "deliver_to"),
        (json!({ "invoice": with(samples::phone(), &[("/kind", json!("bill"))]) }), "kind"),
        (json!({ "invoice": with(samples::phone(), &[("/lines/0/hsn", json!(8517))]) }), "lines[0].hsn"),
        (json!({ "refusal_id": 7 }), "refusal_id"),
        (json!({ "invoice_id": uuid::Uuid::nil(), "refusal_id": uuid::Uuid::nil() }), "invoice_id"),
        (json!([1]), "[0]"),
    ] {
        let issue: Issue = serde_json::from_value(payload).expect("any JSON is taken out of its job");
        assert_eq!(format!("{issue:?}"), "New(HandedOver(redacted))");
        let Issue::New(handed_over) = issue else { panic!("{issue:?}") };
        let Err(problem) = handed_over.read() else { panic!("{field} reads") };
        assert_eq!(problem.field, field);
    }
}

#[test]
fn schema_of_the_payload() {
    insta::assert_json_snapshot!(schemars::schema_for!(Issue));
}

#[test]
fn debug_shows_nobody() {
    let shown =
        format!("{:?} {:?}", samples::new_invoice(&samples::phone()), samples::invoice(&samples::phone()).buyer);
    assert_eq!(shown, "NewInvoice(redacted) Some(Buyer(redacted))");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn totals_always_add_up(
        lines in prop::collection::vec((1u32..100_000, 0u32..10_000_000, 0u32..=100, 0usize..5), 1..20),
        other_state: bool,
    ) {
        let rates = ["0", "0.25", "5", "18", "40"];
        let lines: Vec<_> = lines.into_iter().map(|(milli, paise, off, rate)| {
            let (quantity, price) = (Decimal::new(milli.into(), 3), Decimal::new(paise.into(), 2));
            let discount = (quantity * price * Decimal::new(off.into(), 2)).trunc();
            json!({
                "description": "x", "hsn": "8517", "quantity": quantity.to_string(), "unit": "NOS",
                "unit_price": price.to_string(), "discount": discount.to_string(), "gst_rate": rates[rate]
            })
        }).collect();
        let state = if other_state { "29" } else { "27" };
        let value = with(samples::phone(), &[
            ("/lines", json!(lines)), ("/total", json!(null)), ("/buyer/address/state", json!(state)),
        ]);
        let amounts = amounts(&value);
        let by_line: Decimal = amounts.lines.iter().map(|line| line.taxable + line.tax.sum()).sum();
        prop_assert_eq!(by_line, amounts.taxable + amounts.tax.sum());
        prop_assert_eq!(amounts.taxable + amounts.tax.sum() + amounts.round_off, amounts.total);
        prop_assert!(amounts.round_off >= decimal("-0.49") && amounts.round_off <= decimal("0.50"));
        prop_assert_eq!(amounts.total, amounts.total.trunc());
        prop_assert_eq!(amounts.tax.cgst, amounts.tax.sgst);
        prop_assert_eq!(other_state, amounts.heads == Heads::Integrated);
        let again = with(value, &[("/total", json!(amounts.total.to_string()))]);
        prop_assert_eq!(check(&samples::new_invoice(&again), samples::today()), Ok(amounts));
    }
}
