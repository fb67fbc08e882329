// The tool's expansion for another test: reads [{sql, variables, range}, …], writes the texts.

import { readFileSync } from 'node:fs';

import { expandSql } from '../query/sql.mjs';

const asked = JSON.parse(readFileSync(0, 'utf8'));
console.log(JSON.stringify(asked.map(({ sql, ...rest }) => expandSql(sql, rest))));
