//! Does changes to a text: new lines go in where the parser says things are, ours come out, and every other byte stays.
//!
//! Going back must give the same bytes. So a key that we make is recognized by what stands behind it, which is nothing; where the user's own key
//! has nothing (`env:`, `env: ~`, `env: []`), that becomes a comment behind [`WAS`], which is taken off again.

use yaml_rust2::Yaml;

use super::{
    change::{Change, Step, What},
    edit::{Edit, Edits},
    emit::{self, Style},
    flow,
    lines::Lines,
    rewrite::Problem,
    tree::{self, Node, Shape},
};

/// Behind a key whose value was null or empty; what it was follows.
const WAS: &str = " # before inject:";

/// Does the changes, which are all additions or all removals.
pub(super) fn apply(text: &str, changes: &[Change]) -> Result<String, Problem> {
    let tree = tree::parse(text)?;
    let lines = Lines::of(text);
    let mut splice = Splice {
        lines: &lines,
        edits: Edits::of(&lines),
    };
    for change in changes {
        splice.change(&tree, change)?;
    }
    Ok(splice.edits.done())
}

struct Splice<'a> {
    lines: &'a Lines<'a>,
    edits: Edits<'a>,
}

/// The place of a change: the map, and its key with the list if it is there.
struct Place<'a> {
    pairs: &'a [(Node, Node)],
    is_flow: bool,
    start: usize,
    found: Option<usize>,
    depth: usize,
}

impl Splice<'_> {
    fn change(&mut self, tree: &Node, change: &Change) -> Result<(), Problem> {
        let map = self.walk(tree, change.map())?;
        let Shape::Map { pairs, close } = &map.shape else {
            return Err(self.problem(map.start, "this is not a map"));
        };
        let place = Place {
            pairs,
            is_flow: close.is_some(),
            start: map.start,
            found: pairs.iter().position(|(key, _)| key.is(change.list)),
            depth: change.map().count(),
        };
        match &change.what {
            What::Remove(entries) => self.remove(&place, entries),
            What::Prepend(entries) => {
                let style = self.style(tree, change)?;
                self.add(&place, change.list, entries, true, style)
            }
            What::Append(entries) => {
                let style = self.style(tree, change)?;
                self.add(&place, change.list, entries, false, style)
            }
        }
    }

    /// The node at a path. What is an alias, or merged, stands elsewhere too, where it must not change.
    fn walk<'n>(
        &self,
        tree: &'n Node,
        mut path: impl Iterator<Item = &'n Step>,
    ) -> Result<&'n Node, Problem> {
        path.try_fold(tree, |node, step| {
            let next = match (&node.shape, step) {
                (Shape::List { items, .. }, Step::Index(index)) => items.get(*index),
                (Shape::Map { pairs, .. }, Step::Key(wanted)) => pairs
                    .iter()
                    .find(|(key, _)| key.is(wanted))
                    .map(|(_, value)| value),
                _ => None,
            };
            let next = next.ok_or_else(|| self.problem(node.start, "this cannot be edited"))?;
            self.editable(next)?;
            Ok(next)
        })
    }

    fn editable(&self, node: &Node) -> Result<(), Problem> {
        match &node.shape {
            Shape::Alias => Err(self.problem(
                node.start,
                "an alias (*name) cannot be added to; write out what it stands for",
            )),
            Shape::Map { pairs, .. } => match pairs.iter().find(|(key, _)| key.is("<<")) {
                Some((key, _)) => Err(self.problem(
                    key.start,
                    "a merge key (<<) cannot be added to; write out what it stands for",
                )),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn problem(&self, at: usize, message: &'static str) -> Problem {
        Problem::Text {
            line: self.lines.at(at) + 1,
            message,
        }
    }

    /// How the pod is indented.
    fn style(&self, tree: &Node, change: &Change) -> Result<Style, Problem> {
        let mut style = Style { map: 2, list: 2 };
        let (_, above) = change.spec.split_last().unwrap_or((&Step::Index(0), &[]));
        let pod = self.walk(tree, above.iter())?;
        let Shape::Map { pairs, close: None } = &pod.shape else {
            return Ok(style);
        };
        if let Some((key, spec)) = pairs.iter().find(|(key, _)| key.is("spec"))
            && let Shape::Map { pairs, close: None } = &spec.shape
            && let Some((first, _)) = pairs.first()
        {
            let deeper = |inner: usize, outer: usize| {
                let outer = self.lines.column(outer);
                self.lines.column(inner).checked_sub(outer)
            };
            style.map = deeper(first.start, key.start).unwrap_or(style.map).max(1);
            if let Some((key, list)) = pairs.iter().find(|(key, _)| key.is("containers"))
                && let Shape::List { items, close: None } = &list.shape
                && let Some(dash) = items.first().and_then(|item| self.lines.dash(item))
            {
                style.list = deeper(dash, key.start).unwrap_or(style.list);
            }
        }
        Ok(style)
    }

    fn add(
        &mut self,
        place: &Place<'_>,
        list: &str,
        entries: &[Yaml],
        first: bool,
        style: Style,
    ) -> Result<(), Problem> {
        let Some((key, value)) = place.found.map(|index| &place.pairs[index]) else {
            match place.is_flow {
                true => self.edits.push(flow::create(
                    self.lines,
                    place.start,
                    place.pairs,
                    list,
                    entries,
                    place.depth,
                )),
                false => self.create(place, list, entries, style),
            }
            return Ok(());
        };
        self.editable(value)?;
        match &value.shape {
            Shape::List {
                items,
                close: Some(close),
            } if place.is_flow
                || !items.is_empty()
                || self.lines.at(*close) != self.lines.at(key.start) =>
            {
                self.edits.push(flow::extend(
                    self.lines,
                    value.start,
                    items,
                    entries,
                    first,
                    place.depth + 1,
                ));
            }
            // An empty one on its key's line is as good as a null.
            Shape::List { items, .. } if !items.is_empty() => {
                let Some((dash, last)) =
                    items.first().zip(items.last()).and_then(|(first, last)| {
                        Some((self.lines.dash(first)?, (last, self.lines.dash(last)?)))
                    })
                else {
                    return Err(self.problem(value.start, "this list cannot be added to; write it with a dash at the beginning of each entry's line"));
                };
                let column = self.lines.column(dash);
                let after = match first {
                    true => self.lines.at(key.start),
                    false => self.past_comments(self.lines.last(last.0, last.1), column + 1),
                };
                self.edits.insert_lines(
                    after,
                    &emit::items(entries, column, style),
                    place.depth + 1,
                );
            }
            Shape::Map { .. } | Shape::Alias => {
                return Err(self.problem(value.start, "this should be a list"));
            }
            Shape::Scalar(..) if !value.is_null() => {
                return Err(self.problem(value.start, "this should be a list"));
            }
            _ if place.is_flow => {
                return Err(self.problem(
                    key.start,
                    "a null cannot be added to here; leave the key out, or write []",
                ));
            }
            _ => {
                let colon = self.colon(key);
                // Before all else that comes in there, which is at the end of a text without a last line end.
                self.edits
                    .push(Edit::insertion(colon, WAS.to_owned(), usize::MAX));
                let column = self.lines.column(key.start) + style.list;
                let line = self.lines.at(key.start);
                self.edits.insert_lines(
                    line,
                    &emit::items(entries, column, style),
                    place.depth + 1,
                );
            }
        }
        Ok(())
    }

    /// A new key at the end of a map in block style.
    fn create(&mut self, place: &Place<'_>, list: &str, entries: &[Yaml], style: Style) {
        if let Some(((first, _), (key, value))) = place.pairs.first().zip(place.pairs.last()) {
            let column = self.lines.column(first.start);
            let last = self.past_comments(self.lines.last(value, key.start), column);
            self.edits
                .insert_lines(last, &emit::list(list, entries, column, style), place.depth);
        }
    }

    /// The last of the comments below a line that are at least this deep: they belong to what stands there.
    fn past_comments(&self, line: usize, column: usize) -> usize {
        let mut last = line;
        for next in line + 1..self.lines.count() {
            if self.lines.is_comment(next) && self.lines.indent(next) >= column {
                last = next;
            } else if !self.lines.is_blank(next) {
                break;
            }
        }
        last
    }

    fn remove(&mut self, place: &Place<'_>, entries: &[usize]) -> Result<(), Problem> {
        let Some(index) = place.found else {
            return Ok(());
        };
        let (key, value) = &place.pairs[index];
        self.editable(value)?;
        let Shape::List { items, close } = &value.shape else {
            return Err(self.problem(value.start, "this should be a list"));
        };
        let is_all = entries.len() == items.len();
        if close.is_some() {
            if is_all && place.is_flow && !flow::was_empty(self.lines, value.start) {
                let span = |(key, value): &(Node, Node)| (key.start, self.lines.end_in_flow(value));
                let spans = || place.pairs.iter().map(span).collect();
                self.edits.remove_pair(place.start, spans, index);
            } else if is_all {
                let edit = flow::empty(self.lines, value.start, items);
                self.edits.extend(edit.into_iter().collect());
            } else {
                let span = |item: &Node| (item.start, self.lines.end_in_flow(item));
                let spans: Vec<_> = items.iter().map(span).collect();
                self.edits.extend(flow::remove(&spans, entries));
            }
            return Ok(());
        }
        if is_all {
            let colon = self.colon(key);
            let line = self.lines.at(key.start);
            let rest = &self.lines.line(line)[self.lines.column(colon)..];
            let is_first = self.lines.indent(line) == self.lines.column(key.start);
            if rest.starts_with(WAS) {
                self.edits.push(Edit::removal(colon, colon + WAS.len()));
            } else if rest.trim().is_empty() && is_first {
                self.edits.remove_lines(line..=line);
            } else if rest.trim().is_empty() {
                // The key shares its line with a dash, as where keys are sorted: the next one comes to its place.
                let last = self.lines.last(value, key.start);
                let next = place.pairs.get(index + 1).map(|(next, _)| next.start);
                let Some(next) = next.filter(|next| self.lines.at(*next) == last + 1) else {
                    return Err(self.problem(
                        key.start,
                        "this cannot be taken out; put it below another key",
                    ));
                };
                self.edits.push(Edit::removal(key.start, next));
                return Ok(());
            }
        }
        for index in entries {
            let item = &items[*index];
            let Some(dash) = self.lines.dash(item) else {
                return Err(self.problem(item.start, "this cannot be taken out"));
            };
            self.edits
                .remove_lines(self.lines.at(dash)..=self.lines.last(item, dash));
        }
        Ok(())
    }

    /// The offset behind the colon of a key.
    fn colon(&self, key: &Node) -> usize {
        let end = match self.lines.text.as_bytes()[key.start] {
            b'"' | b'\'' => self.lines.end_of_quoted(key.start),
            _ => key.start,
        };
        let colon = self.lines.text[end..].find(':');
        colon.map_or(self.lines.text.len(), |colon| end + colon + 1)
    }
}
