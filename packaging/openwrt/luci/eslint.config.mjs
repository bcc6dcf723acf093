// LuCI runs a view as the body of a function with these names in it, so a file ends with a return.
const globals = Object.fromEntries(
	['window', 'document', 'L', 'E', '_', 'baseclass', 'dom', 'form', 'fs', 'poll', 'rpc', 'tools', 'ui', 'view', 'Promise', 'Object']
		.map((name) => [name, 'readonly']));

export default [{
	files: ['htdocs/**/*.js'],
	languageOptions: { ecmaVersion: 2020, sourceType: 'script', parserOptions: { ecmaFeatures: { globalReturn: true } }, globals },
	linterOptions: { reportUnusedDisableDirectives: 'error' },
	rules: {
		'array-callback-return': 'error', 'consistent-return': 'off', 'constructor-super': 'error', 'dot-notation': 'error', eqeqeq: ['error', 'smart'],
		'for-direction': 'error', 'getter-return': 'error', 'no-alert': 'error', 'no-cond-assign': 'error', 'no-const-assign': 'error',
		'no-constant-condition': 'error', 'no-console': 'error', 'no-dupe-args': 'error', 'no-dupe-keys': 'error', 'no-duplicate-case': 'error',
		'no-empty': 'error', 'no-eval': 'error', 'no-extra-boolean-cast': 'error', 'no-fallthrough': 'error', 'no-func-assign': 'error',
		'no-implicit-globals': 'off', 'no-implied-eval': 'error', 'no-invalid-regexp': 'error', 'no-loss-of-precision': 'error', 'no-new-func': 'error',
		'no-redeclare': 'error', 'no-self-assign': 'error', 'no-self-compare': 'error', 'no-shadow': 'off', 'no-throw-literal': 'error',
		'no-undef': 'error', 'no-unreachable': 'error', 'no-unsafe-finally': 'error', 'no-unused-vars': ['error', { varsIgnorePattern: '^(s|o)$' }],
		'no-useless-escape': 'error', 'no-var': 'error', 'prefer-const': 'error', 'use-isnan': 'error', 'valid-typeof': 'error'
	}
}];
