//! The one place that prints: tables for people, one JSON object a line for machines. Never colours, so that what is
//! piped, pasted and compared is plain text.

use std::io::{self, Write};

use serde::Serialize;

/// How a command prints its data.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Output {
    /// One JSON object a line, for machines
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Whether machines read it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Rows under headings; with `--json` the objects themselves.
    pub(crate) fn table<T: Serialize>(
        self,
        headings: &[&str],
        rows: &[T],
        cells: impl Fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        if self.json {
            return rows.iter().try_for_each(json_line);
        }
        let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
        text(&align(headings, &rows))
    }

    /// One thing as `name  value` lines, those that say something; with `--json` the object itself.
    pub(crate) fn item<T: Serialize>(self, item: &T, fields: &[(&str, String)]) -> anyhow::Result<()> {
        if self.json {
            return json_line(item);
        }
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let said = fields.iter().filter(|(_, value)| !value.is_empty());
        let lines: String = said.map(|(name, value)| format!("{name:<width$}  {value}\n")).collect();
        text(&lines)
    }

    /// One line about what was done; with `--json` the object itself.
    pub(crate) fn done<T: Serialize>(self, item: &T, line: &str) -> anyhow::Result<()> {
        if self.json { json_line(item) } else { text(&format!("{line}\n")) }
    }
}

/// Prints `content` as it is.
pub(crate) fn text(content: &str) -> anyhow::Result<()> {
    bytes(content.as_bytes())
}

/// Prints bytes as they are: a PDF into a pipe.
pub(crate) fn bytes(content: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(content).and_then(|()| out.flush()) {
        // Whoever read has seen enough: `muneem jobs list | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => Ok(outcome?),
    }
}

/// Prints one object on its line.
pub(crate) fn json_line<T: Serialize>(item: &T) -> anyhow::Result<()> {
    text(&(serde_json::to_string(item)? + "\n"))
}

/// A state or an amount by the word that machines read of it; nothing for what is no word.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn align(headings: &[&str], rows: &[Vec<String>]) -> String {
    let width_of = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..headings.len()).map(width_of).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    let mut lines = line(&mut headings.iter().copied());
    for row in rows {
        lines += &line(&mut row.iter().map(String::as_str));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["1".to_owned(), "invoice.issue".to_owned()], vec!["1042".to_owned(), "ready".to_owned()]];
        assert_eq!(align(&["id", "kind"], &rows), "id    kind\n1     invoice.issue\n1042  ready\n");
    }
}
