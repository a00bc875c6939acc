//! The list of attacks in `docs/security.md` is true: each test that it names is there, and each test of an attack is in
//! its row.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Names of tests by the number of their attack.
type ByAttack = BTreeMap<String, BTreeSet<String>>;

/// Every `atk_…` after `before` in a text.
fn names<'t>(text: &'t str, before: &'static str) -> impl Iterator<Item = &'t str> {
    text.match_indices(before).filter_map(move |(at, _)| {
        let rest = &text[at + before.len()..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        rest[..end].starts_with("atk_").then_some(&rest[..end])
    })
}

fn collect(folder: &Path, found: &mut ByAttack) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let mut attributes = Vec::new();
            for line in text.lines().map(str::trim) {
                if line.starts_with("#[") {
                    attributes.push(line);
                } else if !line.starts_with("//") {
                    for name in names(line, "fn ") {
                        let has = |is: fn(&str) -> bool| attributes.iter().copied().any(is);
                        let runs = has(|one| one.contains("test]") || one.contains("test("));
                        assert!(runs && !has(|one| one.starts_with("#[ignore")), "{name} does not run");
                        found.entry(name[4..7].to_owned()).or_default().insert(name.to_owned());
                    }
                    attributes.clear();
                }
            }
        }
    }
}

#[test]
fn the_list_of_attacks_names_every_test_and_no_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut written = ByAttack::new();
    for folder in ["jobs/src", "worker/src", "worker/tests", "tests"] {
        collect(&root.join(folder), &mut written);
    }
    let list = std::fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut listed = ByAttack::new();
    for row in list.lines().filter_map(|line| line.strip_prefix("| ")) {
        let number = row.split(' ').next().unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let row: BTreeSet<String> = names(row, "`").map(str::to_owned).collect();
        if !row.is_empty() {
            listed.insert(format!("{number:0>3}"), row);
        }
    }
    assert_eq!(listed, written);
    // Access, vault and evidence are there: each of their attacks is tried.
    let untried: Vec<String> = (40..=86).map(|n| format!("{n:03}")).filter(|n| !listed.contains_key(n)).collect();
    assert_eq!(untried, Vec::<String>::new());
}
