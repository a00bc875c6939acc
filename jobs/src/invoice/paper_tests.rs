//! What the paper says, judged by tools of others: poppler reads the text, qpdf the structure, zbar the codes.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::{InvoiceId, paper, rules, samples};

fn pdf(value: &Value) -> Vec<u8> {
    let new = samples::new_invoice(value);
    let amounts = rules::check(&new, samples::today()).expect("a sound document");
    paper::make_pdf(InvoiceId(Uuid::nil()), &new.invoice, &amounts).expect("a document")
}

/// Whether an outside tool is there. Without it the test says so, and fails where completeness is asked for.
fn has_tool(tool: &str, package: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIPPED: needs {tool} (apt-get install {package})");
        assert!(std::env::var("MUNEEM_TESTS_COMPLETE").is_err(), "{tool} is missing: apt-get install {package}");
    }
    found
}

fn run(tool: &str, arguments: &[&str], folder: &Path) -> String {
    let output = Command::new(tool).args(arguments).current_dir(folder).output().expect("the tool runs");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{tool}: {shown}{}", String::from_utf8_lossy(&output.stderr));
    shown
}

fn on_disk(value: &Value) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("a.pdf"), pdf(value)).expect("a file");
    // Where somebody wants to look at them.
    if let Ok(keep) = std::env::var("MUNEEM_TESTS_KEEP_PDF") {
        let name = value["number"].as_str().expect("a number").replace('/', "_");
        std::fs::copy(folder.path().join("a.pdf"), Path::new(&keep).join(name + ".pdf")).expect("a copy");
    }
    folder
}

/// The text with one space between words: where lines break is the layout's affair.
fn text_of(value: &Value) -> String {
    let folder = on_disk(value);
    let text = run("pdftotext", &["-layout", "a.pdf", "-"], folder.path());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn equal_input_gives_equal_bytes() {
    let first = pdf(&samples::phone());
    assert!(first.starts_with(b"%PDF-1.7"));
    // What was made in between leaves no trace.
    pdf(&samples::interstate());
    assert_eq!(first, pdf(&samples::phone()));
}

#[test]
fn what_is_printed() {
    for (name, value) in [
        ("phone", samples::phone()),
        ("interstate", samples::interstate()),
        ("bill_of_supply", samples::bill_of_supply()),
        ("credit_note", samples::credit_note()),
    ] {
        let new = samples::new_invoice(&value);
        let amounts = rules::check(&new, samples::today()).expect("a sound document");
        let mut page = paper::page_data(InvoiceId(Uuid::nil()), &new.invoice, &amounts).expect("a page");
        page["attachment"] = json!("[the document]");
        for code in ["/pay/qr", "/e_invoice/qr"] {
            if let Some(qr) = page.pointer_mut(code) {
                *qr = json!("[svg]");
            }
        }
        insta::assert_json_snapshot!(name, page);
    }
}

#[test]
fn poppler_finds_the_rupee_and_devanagari() {
    if !has_tool("pdftotext", "poppler-utils") {
        return;
    }
    let text = text_of(&samples::phone());
    for expected in [
        "Tax Invoice",
        "₹14,999.00",
        "आशा वर्मा",
        "27ZZZPZ0000Z1ZA",
        "SM/26-27/00042",
        "23 November 2026",
        "HSN 8517",
        "IMEI 490154203237518, 352099001761481",
        "CGST 9% ₹1,143.99 + SGST 9% ₹1,143.99",
        "Maharashtra (27)",
        "Rupees Fourteen Thousand Nine Hundred Ninety-Nine Only",
        "reverse charge: no",
    ] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    let text = text_of(&samples::interstate());
    for expected in ["IGST 18%", "Karnataka (29)", "GSTIN 29ABCDE1234F1ZW", "Delivered to", "SAC 998716", "मराठी"]
    {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    let text = text_of(&samples::credit_note());
    for expected in ["Credit Note", "Total credit", "Against invoice SM/26-27/00031 of 9 November 2026"] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
}

#[test]
fn bill_of_supply_names_no_tax() {
    if !has_tool("pdftotext", "poppler-utils") {
        return;
    }
    let text = text_of(&samples::bill_of_supply());
    assert!(text.contains("Bill of Supply") && text.contains("₹797.00"), "{text}");
    for tax in ["CGST", "SGST", "IGST", "%", "Taxable"] {
        assert!(!text.contains(tax), "{tax} in {text}");
    }
}

#[test]
fn long_documents_have_numbered_pages_and_lose_no_line() {
    if !has_tool("pdftotext", "poppler-utils") {
        return;
    }
    let text = text_of(&samples::long());
    for n in 1..=40 {
        assert!(text.contains(&format!("Silicone cover no. {n},")), "line {n}");
    }
    assert!(text.contains("Page 2 of"), "{text}");
}

#[test]
fn qpdf_finds_no_fault_and_the_document_for_machines_is_attached() {
    if !has_tool("qpdf", "qpdf") {
        return;
    }
    let folder = on_disk(&samples::interstate());
    let report = run("qpdf", &["--check", "a.pdf"], folder.path());
    assert!(report.contains("No syntax or stream encoding errors"), "{report}");
    let attached = run("qpdf", &["a.pdf", "--show-attachment=invoice.json"], folder.path());
    let attached: Value = serde_json::from_str(&attached).expect("JSON");
    assert_eq!(samples::invoice(&attached), samples::invoice(&samples::interstate()));
    let metadata = run("qpdf", &["--qdf", "--object-streams=disable", "a.pdf", "-"], folder.path());
    for claim in ["<pdfaid:part>3</pdfaid:part>", "<pdfaid:conformance>A</pdfaid:conformance>", "<pdfuaid:part>1<"] {
        assert!(metadata.contains(claim), "{claim}");
    }
}

#[test]
fn zbar_reads_the_codes() {
    if !has_tool("zbarimg", "zbar-tools") || !has_tool("pdftoppm", "poppler-utils") {
        return;
    }
    let read = |value: &Value| {
        let folder = on_disk(value);
        run("pdftoppm", &["-r", "150", "-png", "a.pdf", "a"], folder.path());
        let pages: Vec<_> = std::fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
            .filter(|name| name.ends_with(".png"))
            .collect();
        // Status 4 says that one of the pages holds no code.
        let output = Command::new("zbarimg")
            .args(["--quiet", "--raw", "--nodbus"])
            .args(pages)
            .current_dir(folder.path())
            .output()
            .expect("the tool runs");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(
        read(&samples::phone()).trim(),
        "upi://pay?pa=sharma.mobiles@okbank&pn=Sharma%20Mobiles&am=14999.00&cu=INR&tn=SM%2F26-27%2F00042"
    );
    let signed = samples::interstate()["e_invoice"]["signed_qr"].clone();
    assert_eq!(json!(read(&samples::interstate()).trim()), signed);
}

#[test]
fn long_words_stay_on_the_page() {
    if !has_tool("pdftotext", "poppler-utils") {
        return;
    }
    let mut value = samples::phone();
    value["lines"][0]["description"] = json!("x".repeat(299) + "Z");
    let folder = on_disk(&value);
    // Cropped to the page: what hangs over the edge is not there.
    let text =
        run("pdftotext", &["-layout", "-x", "0", "-y", "0", "-W", "595", "-H", "842", "a.pdf", "-"], folder.path());
    let longest = text.split_whitespace().map(|word| word.matches('x').count()).collect::<Vec<_>>();
    assert!(longest.iter().all(|count| *count <= 90) && longest.iter().sum::<usize>() >= 299, "{text}");
}

#[test]
fn what_a_customer_writes_never_becomes_code() {
    let mut value = samples::phone();
    value["buyer"]["name"] = json!("#panic() ] $x$ \\u{41} */ // \"; #import \"x\" <a> @b `c` *d* _e_");
    value["lines"][0]["description"] = json!("#{ sys.inputs } = Heading");
    value["note"] = json!("] #read(\"/etc/passwd\") [");
    if has_tool("pdftotext", "poppler-utils") {
        let text = text_of(&value);
        for expected in ["#panic() ] $x$ \\u{41} */", "#{ sys.inputs } = Heading", "#read(\"/etc/passwd\")"] {
            assert!(text.contains(expected), "{expected} is missing in {text}");
        }
    } else {
        pdf(&value);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What the rules let through can be set and archived, however odd.
    #[test]
    fn whatever_passes_the_rules_can_be_printed(
        text in "[ -~₹–’\\u{900}-\\u{97F}\\u{980}-\\u{9FF}\\u{A00}-\\u{AFF}\\u{B80}-\\u{D7F}\\u{200C}\\u{200D}]{1,60}"
    ) {
        let mut value = samples::phone();
        value["lines"][0]["description"] = json!(text);
        value["buyer"]["name"] = json!(text);
        let new = samples::new_invoice(&value);
        if let Ok(amounts) = rules::check(&new, samples::today()) {
            let made = paper::make_pdf(InvoiceId(Uuid::nil()), &new.invoice, &amounts);
            prop_assert!(made.is_ok(), "{:?}", made.err());
        }
    }
}
