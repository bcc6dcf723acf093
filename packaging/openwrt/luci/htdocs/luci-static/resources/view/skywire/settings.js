'use strict';
'require view';
'require form';

return view.extend({
	render() {
		const m = new form.Map('skywire', _('Settings'), _('A change starts again only what it concerns.'));
		let s = m.section(form.NamedSection, 'globals', 'globals', _('This box'));
		let o = s.option(form.Flag, 'enabled', _('Switched on'), _('Runs the node. What else runs is said on its own page.'));
		o.rmempty = false;
		o = s.option(form.Flag, 'ram', _('State in memory'),
			_('Routes and certificates are written to flash when the daemons stop, and once a day. A power cut costs what is newer.'));
		o.rmempty = false;

		s = m.section(form.NamedSection, 'node', 'node', _('Node'));
		o = s.option(form.Value, 'name', _('Name'), _('Shown to others.'));
		o.datatype = 'hostname';
		o.placeholder = _('the name of the box');
		o = s.option(form.DynamicList, 'peers', _('Neighbours'), _('With whom a link is kept.'));
		o.placeholder = 'KEY@home.example:7667';
		o = s.option(form.DynamicList, 'allow', _('Allowed keys'), _('Who may link, where there is no cluster.'));
		o = s.option(form.Flag, 'open', _('Open'), _('Anybody may link and pass traffic through.'));
		o = s.option(form.DynamicList, 'listen', _('Listens on'), _('The firewall lets UDP port 7667 in.'));
		o.placeholder = 'udp://[::]:7667';
		o = s.option(form.Flag, 'no_port_mapping', _('No port mapping'), _('Do not ask the router in front of this one for a port.'));
		o = s.option(form.Value, 'memory', _('Memory'), _('What the box is taken to have; below 192MB buffers are small.'));
		o.placeholder = '64MB';

		s = m.section(form.NamedSection, 'manager', 'manager', _('Manager'));
		o = s.option(form.Flag, 'enabled', _('Runs here'), _('Sees the mesh, proposes paths, and lets others join. One box of a cluster is enough.'));
		o.rmempty = false;

		s = m.section(form.NamedSection, 'messenger', 'messenger', _('Messenger'));
		o = s.option(form.Flag, 'enabled', _('Runs here'), _('Takes and keeps messages for this box, and for its friends while they are away.'));
		o.rmempty = false;
		return m.render();
	}
});
