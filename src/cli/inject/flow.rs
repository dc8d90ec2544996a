//! The same changes where a list is written in brackets, JSON among it.
//!
//! A list that was there, and empty, gets its entries behind one space, `[ {…}]`, as hardly a program prints it; one that we make has none. So it is
//! known which of them goes with its last entry.

use yaml_rust2::Yaml;

use super::{edit::Edit, emit, lines::Lines, tree::Node};

/// A new key, the first of the map that opens at `start`.
pub(super) fn create(
    lines: &Lines<'_>,
    start: usize,
    pairs: &[(Node, Node)],
    list: &str,
    entries: &[Yaml],
    depth: usize,
) -> Edit {
    let first = pairs.first().map(|(key, _)| key.start);
    let text = format!("\"{list}\": [{}]", entry_texts(entries).join(", "));
    let text = match first {
        Some(first) => format!("{text},{}", gap(lines, start, first)),
        None => text,
    };
    Edit::insertion(first.unwrap_or(start + 1), text, depth)
}

/// More entries of the list that opens at `start`.
pub(super) fn extend(
    lines: &Lines<'_>,
    start: usize,
    items: &[Node],
    entries: &[Yaml],
    first: bool,
    depth: usize,
) -> Edit {
    let texts = entry_texts(entries);
    let Some((before, last)) = items.first().zip(items.last()) else {
        return Edit::insertion(start + 1, format!(" {}", texts.join(", ")), depth);
    };
    let gap = gap(lines, start, before.start);
    match first {
        true => {
            let text = texts.iter().map(|text| format!("{text},{gap}")).collect();
            Edit::insertion(before.start, text, depth)
        }
        false => {
            let text = texts.iter().map(|text| format!(",{gap}{text}")).collect();
            Edit::insertion(lines.end_in_flow(last), text, depth)
        }
    }
}

/// Whether the list that opens at `start` was there, and empty.
pub(super) fn was_empty(lines: &Lines<'_>, start: usize) -> bool {
    lines.text[start + 1..].starts_with(" {")
}

/// Takes everything out of the list that opens at `start`.
pub(super) fn empty(lines: &Lines<'_>, start: usize, items: &[Node]) -> Option<Edit> {
    let (first, last) = items.first().zip(items.last())?;
    let from = match was_empty(lines, start) {
        true => start + 1,
        false => first.start,
    };
    Some(Edit::removal(from, lines.end_in_flow(last)))
}

/// Takes some of the things at `spans` out, which stand in the same brackets, with a comma each.
pub(super) fn remove(spans: &[(usize, usize)], gone: &[usize]) -> Vec<Edit> {
    let stays = |index: &usize| !gone.contains(index);
    let Some(last) = (0..spans.len()).rev().find(stays) else {
        let all = spans.first().zip(spans.last());
        return all
            .map(|(first, last)| Edit::removal(first.0, last.1))
            .into_iter()
            .collect();
    };
    // Those at the end go with the comma before them, all others with the comma behind them.
    let mut edits: Vec<Edit> = (0..last)
        .filter(|index| !stays(index))
        .map(|index| Edit::removal(spans[index].0, spans[index + 1].0))
        .collect();
    if last + 1 < spans.len() {
        edits.push(Edit::removal(spans[last].1, spans[spans.len() - 1].1));
    }
    edits
}

fn entry_texts(entries: &[Yaml]) -> Vec<String> {
    entries.iter().map(emit::json).collect()
}

/// What stands between the bracket at `open` and the first thing behind it, if that can be repeated.
fn gap<'a>(lines: &Lines<'a>, open: usize, first: usize) -> &'a str {
    let gap = &lines.text[open + 1..first];
    match gap.trim().is_empty() {
        true => gap,
        false => " ",
    }
}
