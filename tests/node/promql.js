// What PromQL expressions ask for, read with the grammar of Prometheus' own web page.
//
//   node promql.js PACKAGES < expressions    PACKAGES is the directory that `install` prints
//
// Reads a JSON list of expressions and prints a list as long: the vector selectors of each, with their metrics and the labels that they match, and the labels that
// it names elsewhere (by, without, on, ignoring, group_left). An expression that is no PromQL ends it with exit code 1.
const [, , packages] = process.argv;
const { parser } = require(require.resolve('@prometheus-io/lezer-promql', { paths: [packages] }));

function read(expression) {
  const selectors = [];
  const labels = [];
  const text = (node) => expression.slice(node.from, node.to);
  const unquoted = (node) => text(node).slice(1, -1);

  function selector(node) {
    const found = { metrics: [], labels: [] };
    const name = node.getChild('Identifier');
    if (name) found.metrics.push(text(name));
    for (const matcher of node.getChild('LabelMatchers')?.getChildren('UnquotedLabelMatcher') ?? []) {
      const label = text(matcher.getChild('LabelName'));
      if (label === '__name__') found.metrics.push(...unquoted(matcher.getChild('StringLiteral')).split('|'));
      else found.labels.push(label);
    }
    selectors.push(found);
  }

  parser.parse(expression).iterate({
    enter({ type, node }) {
      if (type.isError) throw new Error(`no PromQL at ${node.from}: ${expression}`);
      if (type.name === 'VectorSelector') selector(node);
      if (type.name === 'GroupingLabels') labels.push(...node.getChildren('LabelName').map(text));
    },
  });
  return { selectors, labels };
}

const expressions = JSON.parse(require('fs').readFileSync(0, 'utf8'));
console.log(JSON.stringify(expressions.map(read)));
