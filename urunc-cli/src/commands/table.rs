//! Columns for people: as wide as their widest cell, three blanks apart, no line ends in blanks.

/// Renders `heads` and `rows`.
pub(super) fn render<const N: usize>(heads: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let lines: Vec<[String; N]> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|column| {
        lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in lines {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [["hello".to_owned(), "1".to_owned()], ["x".to_owned(), "234".to_owned()]];
        assert_eq!(render(["ID", "PID"], rows.into_iter()), "ID      PID\nhello   1\nx       234\n");
    }
}
