use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    messaging::MessageClass,
    outbound::carrier::{DocumentHeader, FilledHeader, MediaId},
    queue::Lane,
};

fn bill() -> Content {
    Content::TaxInvoice(TaxInvoice {
        customer_name: "आशा वर्मा".into(),
        business_name: "Sharma Mobiles".into(),
        invoice_number: "INV-1042".into(),
        amount: "₹1,180.00".into(),
    })
}

/// One of each that has a type of its own.
fn samples() -> [Content; 4] {
    let warning = SignInWarning {
        name: "Asha".into(),
        business_name: "Sharma Mobiles".into(),
        event: "your password was changed".into(),
        at: "23 November 2026, 14:05".into(),
    };
    let link = ApprovalLink {
        business_name: "Sharma Mobiles".into(),
        url: format!("https://muneem.example.in/r/{}", "0".repeat(64)),
        until: "26-11-2026 18:30 IST".into(),
    };
    let code = SignInCode { code: "012345".into() };
    [bill(), Content::SignInCode(code), Content::SignInWarning(warning), Content::ApprovalLink(link)]
}

/// A message of any template, filled with its examples.
fn named(folder: &str) -> Named {
    let words = library().find(folder, Language::En).unwrap_or_else(|| panic!("{folder}"));
    Named { template: folder.to_owned(), parameters: words.examples() }
}

fn with(folder: &str, name: &str, value: &str) -> Content {
    let mut named = named(folder);
    named.parameters.insert(name.to_owned(), value.to_owned());
    Content::Named(named)
}

fn document() -> DocumentHeader {
    DocumentHeader { media: MediaId("1".to_owned()), filename: "INV-1042.pdf".to_owned() }
}

#[test]
fn typed_parameters_are_those_of_the_template() {
    for (sample, language) in samples().iter().flat_map(|sample| [(sample, Language::En), (sample, Language::Hi)]) {
        let words = sample.words(language).expect("shipped");
        let mut names: Vec<_> = sample.parameters().iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut declared: Vec<_> = words.parameters.iter().map(|one| one.name.clone()).collect();
        names.sort();
        declared.sort();
        assert_eq!(declared, names);
        assert_eq!(words.language, language.as_str());
        assert_eq!(sample.check(), Ok(()));
    }
}

#[test]
fn a_code_stands_where_the_carrier_wants_it_and_overtakes_everything() {
    let [bill, code, warning, _] = samples();
    let filled = code.fill(Language::Hi, None);
    assert_eq!(
        (filled.code.as_deref(), filled.body.len(), filled.name.as_str()),
        (Some("012345"), 0, "sign_in_code_v1")
    );
    let lanes = [&bill, &code, &warning].map(|content| content.class().lane());
    assert_eq!(lanes, [Lane::Transactional, Lane::Otp, Lane::Transactional]);
    assert_eq!(bill.fill(Language::En, None).code, None);
}

#[test]
fn the_class_of_a_message_is_what_its_file_says() {
    for (folder, class) in [
        ("breach_notice", MessageClass::Statutory),
        ("rights_acknowledged", MessageClass::Statutory),
        ("rights_answered", MessageClass::Statutory),
        ("rights_partly_kept", MessageClass::Statutory),
        ("rights_verify", MessageClass::Statutory),
        ("security_alert", MessageClass::Transactional),
        ("opt_out_confirmed", MessageClass::Transactional),
        ("payment_reminder", MessageClass::Transactional),
        ("sign_in_code", MessageClass::Otp),
    ] {
        assert_eq!(Content::Named(named(folder)).class(), class, "{folder}");
    }
}

#[test]
fn every_template_reads_well_in_every_language() {
    for (folder, language, entry) in library().iter() {
        let preview = entry.template.preview(&entry.template.examples());
        insta::assert_snapshot!(format!("{folder}.{}", language.as_str()), preview);
    }
}

#[test]
fn every_shipped_template_has_mail_words_with_the_same_parameters() {
    // Those three have no mail, or a mail with parameters of its own.
    let apart = ["approval_link", "sign_in_code", "tax_invoice"];
    for (folder, language, entry) in library().iter().filter(|(folder, ..)| !apart.contains(folder)) {
        let part = |part| mail_part(folder, language, part).unwrap_or_else(|| panic!("{folder} {language:?} {part}"));
        let (subject, body) = (part("subject"), part("body"));
        let words = format!("{subject}{body}");
        for parameter in &entry.template.parameters {
            assert!(words.contains(&format!("{{{{{}}}}}", parameter.name)), "{folder} {language:?} {}", parameter.name);
        }
        for name in file::variables(&words) {
            assert!(entry.template.parameter(name).is_some(), "{folder} {language:?} {name}");
        }
        assert_eq!(subject.trim().lines().count(), 1, "{folder} {language:?}");
    }
}

#[test]
fn a_breach_notice_says_what_rule_7_asks_for() {
    // DPDP Rules 2025 r.7(1)(a) to (e).
    let words = library().find("breach_notice", Language::En).expect("shipped");
    for name in ["nature", "extent", "timing", "consequences", "measures", "safety", "contact"] {
        assert!(words.parameter(name).is_some(), "{name}");
    }
    assert!(words.body.contains("{{nature}}") && words.body.contains("{{contact}}"));
}

#[test]
fn a_parameter_that_is_missing_unknown_or_ill_typed_is_named_with_its_mend() {
    let mut short = named("payment_reminder");
    short.parameters.remove("due_on");
    let mut long = named("breach_notice");
    for (name, letters) in [("name", 200), ("business_name", 200), ("nature", 90), ("extent", 90), ("safety", 110)] {
        long.parameters.insert(name.to_owned(), "x".repeat(letters));
    }
    let nobody = Named { template: "no_such".to_owned(), parameters: BTreeMap::new() };
    let cases = [
        (Content::Named(nobody), "template", "muneem messaging templates list"),
        (Content::Named(short), "due_on", "is missing: give date, such as 23-12-2026"),
        (with("payment_reminder", "amount", "1180"), "amount", "₹1,180.00"),
        (with("payment_reminder", "customer_name", "see https://evil.example"), "customer_name", "not an address"),
        (with("payment_reminder", "invoice_number", "INV 1042"), "invoice_number", "letters, digits"),
        (with("rights_answered", "url", "http://shop.example/r/1"), "url", "https://"),
        (with("rights_answered", "contact", "a\nb"), "contact", "one line"),
        (with("rights_answered", "contact", &"x".repeat(81)), "contact", "80 characters"),
        (with("payment_reminder", "colour", "red"), "colour", "it takes customer_name, business_name"),
        (with("payment_reminder", "919812345678", "x"), "parameters", "is unknown"),
        (Content::SignInCode(SignInCode { code: "12 34".into() }), "code", "at most 15"),
        (Content::Named(long), "name", "longer than 1024 characters"),
    ];
    for (content, field, mend) in cases {
        let (named, told) = content.check().expect_err(field);
        assert_eq!(named, field, "{told}");
        assert!(told.contains(mend), "{field}: {told}");
    }
}

#[test]
fn headers_and_buttons_are_filled_where_the_template_has_them() {
    assert!(matches!(bill().fill(Language::En, Some(document())).header, Some(FilledHeader::Document(_))));
    let notice = Content::Named(named("breach_notice")).fill(Language::Hi, None);
    assert!(notice.header.is_none(), "its line has no parameter");
    assert_eq!((notice.language.as_str(), notice.body.len(), notice.buttons.len()), ("hi", 9, 0));
    // A folder that is gone by the time of sending is refused by the carrier, not sent in other words.
    let gone = Content::Named(Named { template: "gone".to_owned(), parameters: BTreeMap::new() });
    assert_eq!(gone.fill(Language::Or, None).name, "gone");
    assert_eq!(gone.fill(Language::Or, None).language, "en");
}

#[test]
fn atk_099_a_language_without_words_falls_back_as_declared() {
    let language = |language: Language| bill().fill(language, Some(document())).language;
    assert_eq!([Language::Ta, Language::Mr, Language::Or, Language::Hi].map(language), ["en", "hi", "en", "hi"]);
    assert_eq!(names_of("tax_invoice", "mr"), Some(("tax_invoice_v1", "hi")));
    assert_eq!(names_of("tax_invoice", "xx"), Some(("tax_invoice_v1", "en")));
    assert_eq!(names_of("no_such", "en"), None);
}

#[test]
fn what_was_sealed_before_the_generic_kind_still_reads() {
    let old = r#"{"sign_in_code":{"code":"012345"}}"#;
    assert!(matches!(serde_json::from_str(old).expect("reads"), Content::SignInCode(_)));
    let new = serde_json::to_string(&Content::Named(named("order_ready"))).expect("writes");
    assert!(new.starts_with(r#"{"named":{"template":"order_ready","parameters":{"#), "{new}");
    assert_eq!(serde_json::from_str::<Content>(&new).expect("reads").check(), Ok(()));
}

#[test]
fn atk_028_values_never_become_parameters() {
    let words = library().find("tax_invoice", Language::En).expect("shipped");
    let values = [("customer_name".to_owned(), "{{amount}}".to_owned()), ("amount".to_owned(), "₹1.00".to_owned())];
    let text = words.render(&values);
    assert!(text.starts_with("Dear {{amount}}, ") && text.contains("for ₹1.00 is attached"), "{text}");
}

proptest! {
    /// Whatever is given, what passes fits into the carrier's limits in every language.
    #[test]
    fn atk_099_what_passes_fits_in_every_language(
        folder in prop::sample::select(vec!["breach_notice", "rights_partly_kept", "security_alert", "payment_reminder"]),
        changed in prop::collection::vec((any::<prop::sample::Index>(), ".{0,140}"), 0..4),
    ) {
        let mut named = named(folder);
        let names: Vec<_> = named.parameters.keys().cloned().collect();
        for (index, value) in changed {
            named.parameters.insert(index.get(&names).clone(), value);
        }
        let content = Content::Named(named);
        if content.check().is_ok() {
            for words in library().of_folder(folder) {
                let filled = content.fill(Language::of(&words.language), None);
                prop_assert!(words.render(&filled.body).chars().count() <= 1024);
                prop_assert_eq!(filled.body.len(), file::variables(&words.body).len());
                prop_assert!(filled.body.iter().all(|(_, value)| !value.contains(['\n', '\t']) && !value.trim().is_empty()));
            }
        }
    }

    /// What is asked for under a name that the template does not know never passes.
    #[test]
    fn a_stranger_among_the_parameters_never_passes(stranger in "[a-z]{1,12}", value in ".{0,20}") {
        let mut named = named("order_ready");
        prop_assume!(!named.parameters.contains_key(&stranger));
        named.parameters.insert(stranger, value);
        prop_assert!(Content::Named(named).check().is_err());
    }
}
