//! Columns under a heading, and names with their values.

use std::io::{self, Write};

use super::{Paint, Style, plain, width};

/// A piece of text, perhaps in a colour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    text: String,
    paint: Option<Paint>,
}

impl Cell {
    /// In a colour.
    pub fn painted(text: impl AsRef<str>, paint: Paint) -> Self {
        Self {
            text: plain(text.as_ref()),
            paint: Some(paint),
        }
    }

    fn write(&self, out: &mut dyn Write, style: Style, columns: usize) -> io::Result<()> {
        let padding = columns.saturating_sub(width(&self.text));
        let text = match self.paint {
            Some(paint) => style.paint(paint, &self.text),
            None => self.text.clone(),
        };
        write!(out, "{text}{:padding$}", "")
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: plain(text.as_ref()),
            paint: None,
        }
    }
}

/// Columns, padded; the last one is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without rows.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            header: header.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// One more row, of texts or of [`Cell`]s.
    pub fn row<C: Into<Cell>, const N: usize>(&mut self, cells: [C; N]) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Writes it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let heading = |text: &String| Cell::painted(text, Paint::Strong);
        let header: Vec<Cell> = self.header.iter().map(heading).collect();
        let lines: Vec<&Vec<Cell>> = std::iter::once(&header).chain(&self.rows).collect();
        let columns: Vec<usize> = (0..self.header.len())
            .map(|at| {
                let widths = lines.iter().filter_map(|line| line.get(at));
                widths.map(|cell| width(&cell.text)).max().unwrap_or(0)
            })
            .collect();
        for line in lines {
            write_cells(line, &columns, out, style)?;
        }
        Ok(())
    }
}

/// One line of cells in columns of these widths; the last cell is not padded, and an empty one is a `-`.
///
/// # Errors
/// What `out` says.
pub fn write_cells(
    cells: &[Cell],
    widths: &[usize],
    out: &mut dyn Write,
    style: Style,
) -> io::Result<()> {
    let last = cells.len().saturating_sub(1);
    let dash = Cell::from("-");
    for (at, cell) in cells.iter().enumerate() {
        let cell = match cell.text.is_empty() {
            true => &dash,
            false => cell,
        };
        if at == last {
            cell.write(out, style, 0)?;
        } else {
            cell.write(out, style, widths.get(at).copied().unwrap_or(0))?;
            write!(out, "  ")?;
        }
    }
    writeln!(out)
}

/// Names with their values, one a line, as `kubectl describe` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    lines: Vec<(String, Cell)>,
}

impl Fields {
    /// One more.
    pub fn field(&mut self, name: &str, value: impl Into<Cell>) {
        self.lines.push((name.to_owned(), value.into()));
    }

    /// One more under the last, with no name.
    pub fn more(&mut self, value: impl Into<Cell>) {
        self.lines.push((String::new(), value.into()));
    }

    /// Writes them.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let names = self.lines.iter().map(|(name, _)| width(name) + 1);
        let columns = names.max().unwrap_or(0);
        for (name, value) in &self.lines {
            let name = match name.as_str() {
                "" => Cell::default(),
                name => Cell::painted(format!("{name}:"), Paint::Strong),
            };
            name.write(out, style, columns)?;
            write!(out, "  ")?;
            value.write(out, style, 0)?;
            writeln!(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, colour: bool) -> String {
        let mut out = Vec::new();
        table.write(&mut out, Style { colour }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_the_last_is_not_padded() {
        let mut table = Table::new(["ID", "RULE", "BY"]);
        table.row(["1", "規則", "a"]);
        table.row(["22", "a rule", "somebody"]);
        let expected = "ID  RULE    BY\n1   規則    a\n22  a rule  somebody\n";
        assert_eq!(written(&table, false), expected);
    }

    #[test]
    fn colours_take_no_room() {
        let mut table = Table::new(["A", "B"]);
        table.row([Cell::painted("x", Paint::Bad), Cell::from("y")]);
        table.row([Cell::from("long"), Cell::from("z")]);
        let text = written(&table, true);
        let bare = text
            .replace("\x1b[1m", "")
            .replace("\x1b[31m", "")
            .replace("\x1b[0m", "");
        assert_eq!(bare, written(&table, false));
        assert_ne!(bare, text);
    }

    #[test]
    fn an_empty_cell_is_a_dash() {
        let mut table = Table::new(["A", "B"]);
        table.row(["", ""]);
        assert_eq!(written(&table, false), "A  B\n-  -\n");
        let mut out = Vec::new();
        let cells = [Cell::default(), Cell::from("x")];
        write_cells(&cells, &[3, 0], &mut out, Style::default()).unwrap();
        assert_eq!(out, b"-    x\n");
    }

    #[test]
    fn a_line_end_in_a_cell_makes_no_row() {
        let mut table = Table::new(["A"]);
        table.row(["x\ny"]);
        assert_eq!(written(&table, false), "A\nx\\ny\n");
    }

    #[test]
    fn values_stand_under_each_other() {
        let mut fields = Fields::default();
        fields.field("Phase", "Running");
        fields.field("Position", "7");
        fields.more("two events behind");
        let mut out = Vec::new();
        fields.write(&mut out, Style::default()).unwrap();
        let expected = "Phase:     Running\nPosition:  7\n           two events behind\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
