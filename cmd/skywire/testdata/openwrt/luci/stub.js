'use strict';

// As much of the runtime of LuCI as the views of luci-app-skywire use, in words of our own, to load them in a browser without a router.
// It is not LuCI: what a view may call, how a class is made and what E() does with strings follow its documentation, looks and
// widgets do not. Calls go to the test's server, which holds them to the ACL of the package.

(function() {
	const problems = window.problems = [];
	window.addEventListener('error', function(e) { problems.push(String(e.message)); });
	window.addEventListener('unhandledrejection', function(e) { problems.push(String(e.reason && e.reason.stack || e.reason)); });

	// %s and %d are all that the views have.
	String.prototype.format = function() {
		const args = Array.from(arguments);
		return this.replace(/%[sd]/g, function() { return args.shift(); });
	};
	const translate = function(text) { return text; };

	function append(node, children) {
		if (Array.isArray(children))
			children.forEach(function(c) {
				if (c instanceof Node)
					node.appendChild(c);
				else if (Array.isArray(c))
					append(node, c);
				else if (c != null)
					node.appendChild(document.createTextNode(String(c)));
			});
		else if (children instanceof Node)
			node.appendChild(children);
		else if (children != null)
			node.innerHTML = String(children); // as LuCI: a string alone is HTML
		return node;
	}

	function E(tag, attributes, children) {
		const node = document.createElement(tag);
		if (attributes && (Array.isArray(attributes) || attributes instanceof Node || typeof attributes !== 'object'))
			throw new Error('E(' + tag + '): no attributes');
		Object.keys(attributes || {}).forEach(function(name) {
			if (typeof attributes[name] === 'function')
				node.addEventListener(name, attributes[name]);
			else if (attributes[name] != null)
				node.setAttribute(name, attributes[name]);
		});
		return append(node, children);
	}

	async function post(path, body) {
		const answer = await fetch(path, { method: 'POST', body: JSON.stringify(body) });
		if (!answer.ok)
			throw new Error(path + ' ' + JSON.stringify(body) + ': ' + answer.status + ' ' + await answer.text());
		return answer.json();
	}

	const baseclass = {
		extend(own) {
			const parent = this.prototype || Object.prototype;
			const prototype = Object.assign(Object.create(parent), own);
			const made = function() {};
			made.prototype = prototype;
			made.extend = baseclass.extend;
			return made;
		}
	};

	const rpc = {
		declare(o) {
			return async function() {
				const args = Array.from(arguments), params = {};
				(o.params || []).forEach(function(name, i) {
					if (args[i] !== undefined)
						params[name] = args[i];
				});
				let answer = await post('rpc', { object: o.object, method: o.method, params: params });
				Object.keys(o.expect || {}).forEach(function(key) {
					const whole = answer[key];
					answer = whole === undefined ? o.expect[key] : whole;
				});
				return answer;
			};
		}
	};

	const dom = { content(node, children) { node.innerHTML = ''; return append(node, children); } };

	const poll = { rounds: [], add(f, seconds) { this.rounds.push(f); window.setInterval(f, seconds * 1000); } };
	window.pollNow = function() { return Promise.all(poll.rounds.map(function(f) { return f(); })); };

	const ui = {
		createHandlerFn(self, f) {
			return function(event) {
				const button = event.currentTarget;
				button.disabled = true;
				return Promise.resolve(f.call(self, event)).finally(function() { button.disabled = false; });
			};
		},
		addNotification(title, children, style) {
			document.getElementById('notifications').appendChild(E('div', { 'class': 'alert-message ' + (style || '') }, [children]));
		},
		showModal(title, children) {
			const modal = document.getElementById('modal');
			dom.content(modal, [E('h4', {}, [title])].concat(children));
			modal.hidden = false;
		},
		hideModal() { document.getElementById('modal').hidden = true; }
	};

	const fs = { async exec_direct(command, args) { return (await post('exec', { command: [command].concat(args || []).join(' ') })).stdout; } };

	// Forms: a section of UCI with its options, each a plain input named SECTION.OPTION.
	const kinds = { Flag: 'Flag', Value: 'Value', DynamicList: 'DynamicList', NamedSection: 'NamedSection', TypedSection: 'TypedSection' };

	function input(kind, id, value, o) {
		if (kind === 'Flag')
			return E('input', { 'type': 'checkbox', 'name': id, 'checked': value === '1' ? '' : null });
		if (kind === 'DynamicList')
			return E('textarea', { 'name': id, 'rows': 2, 'cols': 60, 'placeholder': o.placeholder }, [[].concat(value || []).join('\n')]);
		return E('input', { 'type': 'text', 'name': id, 'size': 40, 'value': value, 'placeholder': o.placeholder });
	}

	function Section(kind, type, name, title, about) {
		Object.assign(this, { kind: kind, type: type, name: name, title: title, about: about, options: [] });
	}
	Section.prototype.option = function(kind, name, title, about) {
		if (!kind)
			throw new Error('option ' + name + ': not a kind of option that this stub has');
		const o = {
			kind: kind, name: name, title: title, about: about, choices: [], conditions: [],
			value(key, label) { this.choices.push([key, label]); },
			depends(other, is) { this.conditions.push([other, is]); }
		};
		this.options.push(o);
		return o;
	};
	Section.prototype.render = function(config) {
		const self = this;
		const names = this.kind === 'NamedSection' ? [this.name] : Object.keys(config).filter(function(n) { return config[n]['.type'] === self.type; });
		return E('div', { 'class': 'cbi-section' }, [E('h3', {}, [this.title]), this.about ? E('p', {}, [this.about]) : ''].concat(names.map(function(name) {
			const values = config[name];
			if (!values)
				return E('p', {}, ['no section ' + name]);
			return E('div', { 'data-section': name }, self.options.map(function(o) {
				const id = name + '.' + o.name;
				return E('div', { 'class': 'cbi-value' }, [
					E('label', {}, [o.title]),
					E('div', {}, [input(o.kind, id, values[o.name], o), o.about ? E('div', {}, [E('small', {}, [o.about])]) : '',
						o.choices.map(function(c) { return E('option', { 'value': c[0] }, [c[1]]); })])
				]);
			}));
		})));
	};

	function Map(config) {
		this.config = config;
		this.sections = [];
	}
	Map.prototype.section = function(kind, name, type, title, about) {
		if (!kind)
			throw new Error('section ' + name + ': not a kind that this stub has');
		const s = kind === 'NamedSection' ? new Section(kind, type, name, title, about) : new Section(kind, name, null, type, title);
		this.sections.push(s);
		return s;
	};
	Map.prototype.render = async function() {
		const config = await post('uci', { get: this.config });
		return E('div', { 'class': 'cbi-map' }, this.sections.map(function(s) { return s.render(config); }));
	};
	// What "Save & Apply" does: the options that differ go to UCI.
	window.saveAndApply = async function() {
		const set = [];
		document.querySelectorAll('[data-section] [name]').forEach(function(i) {
			const before = i.type === 'checkbox' ? i.defaultChecked : i.defaultValue, now = i.type === 'checkbox' ? i.checked : i.value;
			if (before === now)
				return;
			const [section, option] = i.name.split('.');
			set.push({ section: section, option: option, list: i.tagName === 'TEXTAREA', value: i.type === 'checkbox' ? (now ? '1' : '0') : now });
		});
		return post('uci', { set: set });
	};

	const L = window.L = {
		bind(f, self) { return f.bind(self); },
		resolveDefault(promise, otherwise) { return Promise.resolve(promise).catch(function() { return otherwise; }); }
	};
	window.E = E;
	window._ = translate;

	const modules = {
		view: Object.assign({}, baseclass), baseclass: baseclass, rpc: rpc, dom: dom, poll: poll, ui: ui, fs: fs,
		form: Object.assign({ Map: function(config) { return new Map(config); } }, kinds)
	};

	// A module is a function body that names at its head what it needs.
	async function require(name) {
		if (modules[name])
			return modules[name];
		const answer = await fetch('luci-static/resources/' + name.replace(/\./g, '/') + '.js');
		if (!answer.ok)
			throw new Error(name + ': ' + answer.status);
		const source = await answer.text();
		const names = ['window', 'document', 'L', 'E', '_'], values = [window, document, L, E, translate];
		for (const m of source.matchAll(/^'require ([\w.]+)(?: as (\w+))?';$/mg)) {
			names.push(m[2] || m[1].replace(/\./g, '_'));
			values.push(await require(m[1]));
		}
		const made = Function.apply(null, names.concat([source + '\n//# sourceURL=' + name + '.js'])).apply(null, values);
		modules[name] = name.startsWith('view.') ? made : new made();
		return modules[name];
	}

	window.ready = (async function() {
		const view = await require('view.' + location.hash.slice(1).replace('/', '.'));
		const shown = new view();
		const data = shown.load ? await shown.load() : undefined;
		dom.content(document.getElementById('maincontent'), [await shown.render(data)]);
		if (!('handleSave' in shown))
			document.getElementById('maincontent').appendChild(E('p', { 'class': 'right' }, [E('button', { 'id': 'save', 'click': window.saveAndApply }, ['Save & Apply'])]));
		window.shown = true;
	})();
})();
