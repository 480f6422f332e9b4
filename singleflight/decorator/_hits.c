/* The hit path in C: make the key, look into the store's index, compare, count, return the value.
 *
 * It decides nothing. Whatever is no plain hit goes to the Python function that serves such calls where this
 * was not built (the driver), with the same arguments; wrong arguments go to the compiled Python call, which
 * raises what it always raises. A key that is put together here (`keyparts.py`) finds, and is not stored.
 *
 * What it may touch. Of a record (`storage/record.py`) it reads `deadline` and `value` and adds to `hits`, and
 * nothing else. `Record` stays a Python class with `__slots__`: where these three lie in it is read from the
 * class's own member descriptors when a `Core` is made, and what is not as expected is refused there. Of the
 * index, a dictionary that the store replaces as a whole, it reads one item, and keeps the dictionary alive
 * meanwhile: comparing keys may run code that has another one take its place.
 *
 * Why no hit is lost or counted twice (`Record` has the argument for Python code). A record that leaves gets
 * `deadline = -inf`, and after that its hits are added up. Both happen under the global interpreter lock, and
 * between the comparison with `deadline` and the addition to `hits` nothing here runs Python code, frees an
 * object that could, or lets go of that lock. So it is not built for interpreters without such a lock. `hits`
 * is a float: where this slot alone refers to it, it is raised in place, which nobody can see.
 *
 * The objects. A decorated function's class, made in Python (`function.py`), gets one class below it, made
 * here by `make`, whose objects have two more fields: what to call (vectorcall) and their `Core`. It has no
 * traverse, clear or dealloc of its own, but inherits the subtype functions of CPython, which see to the
 * second field as they do to any slot. `attach` fills the fields. A class for methods has in addition the flag
 * Py_TPFLAGS_METHOD_DESCRIPTOR: `account.price("x")` then calls the function with the instance in front, and
 * no bound object is made. `become` gives an object the other of its two classes, which have the same layout.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <time.h>

#ifdef Py_GIL_DISABLED
#error "needs the global interpreter lock: see above"
#endif

#define MOST 12 /* parameters; functions with more have the Python call */
#define OWNER -1 /* among the parts of a key: the instance, or what stands for it */

typedef struct {
    PyObject_HEAD
    PyObject *index;                       /* a dictionary; replaced as a whole */
    PyObject *timer, *call;                /* called for the time, unless `clock`; what serves all other calls */
    PyTypeObject *record, *kind;           /* of all records; of those that were found to be one lately */
    PyObject *shape;                       /* what `shape` was given; the next twelve are borrowed from it */
    PyObject *names, *defaults;            /* of the parameters; a default that is this core: there is none */
    PyObject *words;                       /* the names of those that are passed by name alone, or NULL */
    PyObject *make_key;                    /* the user's `key`, or NULL: then the key is made of the parts */
    PyObject *code;                        /* what it ran when it was read: with it, it does as the parts say */
    PyObject *paths;                       /* for each part the names of the attributes to follow from it */
    PyObject *known, *owner;               /* by id(), what stands for an instance; who makes that, or NULL */
    PyObject *driver, *cache, *run, *refuse; /* what is not a hit; wrong keys */
    Py_ssize_t deadline, hits, value;      /* where they lie in a record */
    int clock, lone, by_place, placed, all, count; /* the number of parameters, of each kind, and of parts */
    signed char parts[MOST + 1];
} Core;

/* -- the clock, the key, the record ------------------------------------------------------------------ */
static inline int read_clock(double *now) {
#if PY_VERSION_HEX >= 0x030D0000
    PyTime_t ticks;
    if (PyTime_MonotonicRaw(&ticks) < 0)
        return -1;
    *now = PyTime_AsSecondsDouble(ticks);
    return 0;
#elif defined(__linux__) /* and rounded as CPython does */
    struct timespec spec;
    if (clock_gettime(CLOCK_MONOTONIC, &spec) != 0)
        return -1;
    int64_t ticks = (int64_t)spec.tv_sec * 1000000000 + spec.tv_nsec;
    *now = ticks % 1000000000 == 0 ? (double)(ticks / 1000000000) : (double)ticks / 1e9;
    return 0;
#else
    (void)now;
    return -1;
#endif
}

/* What `time.monotonic` runs, once `trust` has found that it tells what is read here. */
static PyCFunction monotonic = NULL;

/* The time by the function's own clock. -1: an exception is set. */
static inline int time_of(Core *core, double *now) {
    /* Asked every time: tools for tests put another clock into its place, or into the very object. */
    if (core->clock && PyCFunction_GET_FUNCTION(core->timer) == monotonic && read_clock(now) == 0)
        return 0;
    PyObject *told = PyObject_CallNoArgs(core->timer);
    if (told == NULL)
        return -1;
    *now = PyFloat_AsDouble(told);
    Py_DECREF(told);
    return *now == -1.0 && PyErr_Occurred() ? -1 : 0;
}

/* Whether it is one of the kinds of records. A function has mostly one of them, which is not asked again. */
static int is_record(Core *core, PyTypeObject *type) {
    int is_one = PyType_IsSubtype(type, core->record);
    if (is_one && core->kind == core->record)
        Py_SETREF(core->kind, (PyTypeObject *)Py_NewRef(type));
    return is_one;
}

/* The value of a fresh record, counted: 1. 0: there is none. -1: an exception is set. */
static inline int look(Core *core, PyObject *key, PyObject **value) {
    double now;
    if (time_of(core, &now) < 0)
        return -1;
    PyObject *index = Py_NewRef(core->index);
    PyObject *record = PyDict_GetItemWithError(index, key); /* borrowed */
    int found = record == NULL && PyErr_Occurred() ? -1 : 0;
    if (record != NULL && (Py_IS_TYPE(record, core->kind) || is_record(core, Py_TYPE(record)))) {
        PyObject *deadline = *(PyObject **)((char *)record + core->deadline);
        PyObject **hits = (PyObject **)((char *)record + core->hits), *before = *hits;
        PyObject *what = *(PyObject **)((char *)record + core->value);
        if (deadline != NULL && PyFloat_CheckExact(deadline) && now < PyFloat_AS_DOUBLE(deadline)
            && before != NULL && PyFloat_CheckExact(before) && what != NULL) {
            PyObject *own = Py_REFCNT(before) == 1 ? before : PyFloat_FromDouble(PyFloat_AS_DOUBLE(before));
            if ((found = own == NULL ? -1 : 1) == 1) {
                ((PyFloatObject *)own)->ob_fval += 1.0;
                if (own != before)
                    Py_SETREF(*hits, own); /* a float: this runs nothing */
                *value = Py_NewRef(what);
            }
        }
    }
    Py_DECREF(index);
    return found;
}

/* The arguments in the order of the parameters, borrowed; false where they do not fit. */
static inline int sort_out(Core *core, PyObject *const *args, Py_ssize_t count, PyObject *kwnames,
                           PyObject **given) {
    Py_ssize_t all = core->all, at = 0;
    if (count > core->placed)
        return 0;
    for (; at < count; at++)
        given[at] = args[at];
    for (; at < all; at++)
        given[at] = NULL;
    for (Py_ssize_t word = 0; kwnames != NULL && word < PyTuple_GET_SIZE(kwnames); word++) {
        PyObject *name = PyTuple_GET_ITEM(kwnames, word);
        for (at = core->by_place; at < all && PyTuple_GET_ITEM(core->names, at) != name; at++)
            ;
        if (at == all) /* another object, perhaps an equal one */
            for (at = core->by_place; at < all; at++)
                if (PyUnicode_Compare(PyTuple_GET_ITEM(core->names, at), name) == 0)
                    break;
        if (at == all || given[at] != NULL)
            return 0;
        given[at] = args[count + word];
    }
    for (at = count; at < all; at++)
        if (given[at] == NULL && (given[at] = PyTuple_GET_ITEM(core->defaults, at)) == (PyObject *)core)
            return 0;
    return 1;
}

/* What stands for the instance that is the first argument: a new reference. */
static inline PyObject *owner_of(Core *core, PyObject *instance) {
    if (core->owner == NULL)
        return Py_NewRef(instance);
    PyObject *identity = PyLong_FromVoidPtr(instance);
    if (identity == NULL)
        return NULL;
    PyObject *owner = Py_XNewRef(PyDict_GetItemWithError(core->known, identity));
    Py_DECREF(identity);
    if (owner == NULL && !PyErr_Occurred())
        owner = PyObject_CallOneArg(core->owner, instance);
    return owner;
}

/* A part of the key, a new reference. */
static inline PyObject *part_of(Core *core, int at, PyObject **given) {
    int part = core->parts[at];
    PyObject *item = part == OWNER ? owner_of(core, given[0]) : Py_NewRef(given[part]);
    PyObject *path = PyTuple_GET_ITEM(core->paths, at);
    for (Py_ssize_t step = 0; item != NULL && step < PyTuple_GET_SIZE(path); step++)
        Py_SETREF(item, PyObject_GetAttr(item, PyTuple_GET_ITEM(path, step)));
    return item;
}

/* The key as the user's function makes it, a new reference. `given[-1]` is free. */
static inline PyObject *asked_key(Core *core, PyObject **given) {
    size_t placed = core->words == NULL ? core->all : core->placed;
    return PyObject_Vectorcall(core->make_key, given, placed | PY_VECTORCALL_ARGUMENTS_OFFSET, core->words);
}

/* Whether the parts say how the key is made. */
static inline int has_parts(Core *core) {
    return core->make_key == NULL || (core->code != NULL && PyFunction_GET_CODE(core->make_key) == core->code);
}

/* The key of a call, a new reference, made of the parts. */
static inline PyObject *made_key(Core *core, PyObject **given) {
    if (core->lone)
        return part_of(core, 0, given);
    PyObject *key = PyTuple_New(core->count);
    for (int at = 0; key != NULL && at < core->count; at++) {
        PyObject *item = part_of(core, at, given);
        if (item == NULL)
            Py_CLEAR(key);
        else
            PyTuple_SET_ITEM(key, at, item);
    }
    return key;
}

/* -- calls ------------------------------------------------------------------------------------------- */
/* It is no hit: the driver serves the call. */
static PyObject *drive(Core *core, PyObject *key, PyObject **given) {
    PyObject *args = PyTuple_New(core->placed), *kwargs = args == NULL ? NULL : PyDict_New(), *served = NULL;
    for (int at = 0; args != NULL && at < core->placed; at++)
        PyTuple_SET_ITEM(args, at, Py_NewRef(given[at]));
    for (int at = core->placed; kwargs != NULL && at < core->all; at++)
        if (PyDict_SetItem(kwargs, PyTuple_GET_ITEM(core->names, at), given[at]) < 0)
            Py_CLEAR(kwargs);
    if (kwargs != NULL) {
        PyObject *stack[] = {NULL, core->cache, core->run, key, args, kwargs};
        served = PyObject_Vectorcall(core->driver, stack + 1, 5 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_XDECREF(args), Py_XDECREF(kwargs);
    return served;
}

/* The key cannot be hashed, or the clock raised a TypeError: `refuse` raises what says so. */
static PyObject *refuse(Core *core, PyObject *key, PyObject **given) {
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *error = PyErr_GetRaisedException();
#else
    PyObject *kind, *error, *traceback;
    PyErr_Fetch(&kind, &error, &traceback);
    PyErr_NormalizeException(&kind, &error, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(kind), Py_XDECREF(traceback);
#endif
    PyObject *stack[MOST + 3] = {NULL, error, key};
    memcpy(stack + 3, given, core->all * sizeof(PyObject *));
    PyObject *raised = PyObject_Vectorcall(core->refuse, stack + 1, 2 + core->all, NULL);
    Py_XDECREF(error);
    return raised;
}

static void dealloc(Core *core);
static inline Core *core_of(PyObject *function) {
    return *(Core **)((char *)function + Py_TYPE(function)->tp_vectorcall_offset + sizeof(vectorcallfunc));
}

static PyObject *call(PyObject *function, PyObject *const *args, size_t flags, PyObject *kwnames) {
    PyObject *room[MOST + 1], **given = room + 1, *value = NULL;
    Core *core = core_of(function);
    if (core == NULL || Py_TYPE(core)->tp_dealloc != (destructor)dealloc) /* the slot can be written */
        return PyErr_Format(PyExc_TypeError, "this function has lost what it calls");
    Py_INCREF(core);
    if (core->all < 0 || !sort_out(core, args, PyVectorcall_NARGS(flags), kwnames, given))
        value = PyObject_Vectorcall(core->call, args, PyVectorcall_NARGS(flags), kwnames);
    else {
        int by_parts = has_parts(core), found = -1;
        PyObject *key = by_parts ? made_key(core, given) : asked_key(core, given);
        if (key == NULL && by_parts && PyErr_ExceptionMatches(PyExc_Exception)) {
            PyErr_Clear(); /* an attribute that is missing, say: raised in Python, with its own traceback */
            value = PyObject_Vectorcall(core->call, args, PyVectorcall_NARGS(flags), kwnames);
        } else if (key != NULL && (found = look(core, key, &value)) < 0 && PyErr_ExceptionMatches(PyExc_TypeError))
            value = refuse(core, key, given);
        if (found == 0 && by_parts && core->make_key != NULL)
            Py_SETREF(key, asked_key(core, given)); /* what is stored goes by what the user's function says */
        if (found == 0 && key != NULL)
            value = drive(core, key, given);
        Py_XDECREF(key);
    }
    Py_DECREF(core);
    return value;
}

/* -- Core -------------------------------------------------------------------------------------------- */
static int traverse(Core *core, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(core)); Py_VISIT(core->index); Py_VISIT(core->timer); Py_VISIT(core->call);
    Py_VISIT(core->record); Py_VISIT(core->kind); Py_VISIT(core->shape);
    return 0;
}

static int clear(Core *core) { /* the rest leads to no core: what is left can still look */
    core->all = -1;
    Py_CLEAR(core->shape);
    return 0;
}

static void dealloc(Core *core) {
    PyTypeObject *type = Py_TYPE(core);
    PyObject_GC_UnTrack(core);
    clear(core);
    Py_CLEAR(core->call); Py_CLEAR(core->index); Py_CLEAR(core->timer); Py_CLEAR(core->record); Py_CLEAR(core->kind);
    type->tp_free((PyObject *)core);
    Py_DECREF(type);
}

/* Where a slot lies in the objects of a class that Python made; -1: it is no such slot. */
static Py_ssize_t place_of(PyTypeObject *record, const char *name) {
    PyObject *found = PyObject_GetAttrString((PyObject *)record, name);
    Py_ssize_t place = -1;
    if (found != NULL && Py_IS_TYPE(found, &PyMemberDescr_Type)) {
        PyMemberDef *member = ((PyMemberDescrObject *)found)->d_member;
        if (member->type == T_OBJECT_EX)
            place = member->offset;
    }
    if (found != NULL && place < 0)
        PyErr_Format(PyExc_TypeError, "%s is no slot of %R", name, record);
    Py_XDECREF(found);
    return place;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    PyTypeObject *record;
    PyObject *index, *timer, *call;
    if (!PyArg_ParseTuple(args, "O!O!OO:Core", &PyType_Type, &record, &PyDict_Type, &index, &timer, &call))
        return NULL;
    Core *core = (Core *)type->tp_alloc(type, 0);
    if (core == NULL)
        return NULL;
    core->record = (PyTypeObject *)Py_NewRef(record), core->kind = (PyTypeObject *)Py_NewRef(record);
    core->index = Py_NewRef(index);
    core->timer = Py_NewRef(timer);
    core->call = Py_NewRef(call);
    core->clock = PyCFunction_CheckExact(timer);
    core->all = -1; /* until `shape` */
    if ((core->deadline = place_of(record, "deadline")) < 0 || (core->hits = place_of(record, "hits")) < 0
        || (core->value = place_of(record, "value")) < 0)
        Py_CLEAR(core);
    return (PyObject *)core;
}

PyDoc_STRVAR(shape_doc, "Say how calls are read: names, defaults (this core: none), how many parameters are given by "
             "place alone and by place at all, the names of the others (or None), parts of the key (-1: the instance), "
             "the attributes to follow from each, whether that is the one part, the user's key (or None), its code "
             "where that does as the parts say (or None), known and owner of instances (or None), and what is called: "
             "driver, cache, run, refuse. Once: a call that is under way reads this.");
static PyObject *shape(Core *core, PyObject *args) {
    PyObject *parts;
    if (core->shape != NULL)
        return PyErr_Format(PyExc_ValueError, "it has its shape already");
    if (!PyArg_ParseTuple(args, "O!O!iiOO!O!pOOO!OOOOO:shape", &PyTuple_Type, &core->names, &PyTuple_Type,
                          &core->defaults, &core->by_place, &core->placed, &core->words, &PyTuple_Type, &parts,
                          &PyTuple_Type, &core->paths, &core->lone, &core->make_key, &core->code, &PyDict_Type,
                          &core->known, &core->owner, &core->driver, &core->cache, &core->run, &core->refuse))
        return NULL;
    for (PyObject **each = &core->words; each <= &core->owner; each++) /* these lie side by side */
        if (*each == Py_None)
            *each = NULL;
    Py_ssize_t all = PyTuple_GET_SIZE(core->names), count = PyTuple_GET_SIZE(parts);
    int fits = all <= MOST && PyTuple_GET_SIZE(core->defaults) == all && count <= MOST + 1 && 0 <= core->by_place
               && core->by_place <= core->placed && core->placed <= all && (!core->lone || count == 1)
               && PyTuple_GET_SIZE(core->paths) == count && (core->words == NULL) == (core->placed == all)
               && (core->code == NULL || (core->make_key != NULL && PyFunction_Check(core->make_key)));
    for (Py_ssize_t at = 0; fits && at < count; at++) {
        long part = PyLong_AsLong(PyTuple_GET_ITEM(parts, at));
        fits = (core->lone ? 0 : OWNER) <= part && part < all && !(part == OWNER && all == 0)
               && PyTuple_Check(PyTuple_GET_ITEM(core->paths, at));
        core->parts[at] = (signed char)part;
    }
    for (Py_ssize_t at = 0; fits && at < all; at++)
        fits = PyUnicode_Check(PyTuple_GET_ITEM(core->names, at));
    if (!fits)
        return PyErr_Occurred() ? NULL : PyErr_Format(PyExc_ValueError, "not the shape of a call");
    core->shape = Py_NewRef(args);
    core->count = (int)count, core->all = (int)all; /* from now on calls are read */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(find_doc, "Return the fresh value of a key, counted as a hit, or the class of this core: there is none.");
static PyObject *find(Core *core, PyObject *key) {
    PyObject *value = NULL;
    return look(core, key, &value) == 0 ? Py_NewRef(Py_TYPE(core)) : value;
}

PyDoc_STRVAR(seek_doc, "Return the same for these arguments, one for each parameter; also that where it takes Python.");
static PyObject *seek(Core *core, PyObject *const *args, Py_ssize_t count) {
    PyObject *value = NULL, *key = NULL;
    if (count == core->all && has_parts(core) && (key = made_key(core, (PyObject **)args)) != NULL)
        look(core, key, &value);
    Py_XDECREF(key);
    if (value == NULL && PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_Clear(); /* it raises again */
    return value == NULL && !PyErr_Occurred() ? Py_NewRef(Py_TYPE(core)) : value;
}

PyDoc_STRVAR(look_in_doc, "Look into this dictionary from now on.");
static PyObject *look_in(Core *core, PyObject *index) {
    if (!PyDict_CheckExact(index))
        return PyErr_Format(PyExc_TypeError, "expected a dictionary, got %R", Py_TYPE(index));
    Py_SETREF(core->index, Py_NewRef(index));
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {{"shape", (PyCFunction)shape, METH_VARARGS, shape_doc},
                                     {"find", (PyCFunction)find, METH_O, find_doc},
                                     {"seek", (PyCFunction)(void (*)(void))seek, METH_FASTCALL, seek_doc},
                                     {"look_in", (PyCFunction)look_in, METH_O, look_in_doc},
                                     {NULL}};
static PyMemberDef core_members[] = {{"index", T_OBJECT, offsetof(Core, index), READONLY, "where it looks"}, {NULL}};
static PyType_Slot core_slots[] = {{Py_tp_new, core_new},           {Py_tp_dealloc, dealloc},
                                   {Py_tp_traverse, traverse},      {Py_tp_clear, clear},
                                   {Py_tp_methods, core_methods},   {Py_tp_members, core_members},
                                   {Py_tp_doc, "What the calls of one decorated function need."}, {0, NULL}};
static PyType_Spec core_spec = {"singleflight.decorator._hits.Core", sizeof(Core), 0,
                                Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, core_slots};

/* -- the classes of decorated functions -------------------------------------------------------------- */
PyDoc_STRVAR(make_doc, "Return a class below this one whose objects are called in C, as methods or not.");
static PyObject *make(PyObject *module, PyObject *args) {
    PyTypeObject *base;
    int method;
    if (!PyArg_ParseTuple(args, "O!p:make", &PyType_Type, &base, &method))
        return NULL;
    Py_ssize_t end = base->tp_basicsize;
    PyMemberDef members[] = {{"__vectorcalloffset__", T_PYSSIZET, end, READONLY},
                             {"_self_core", T_OBJECT_EX, end + (Py_ssize_t)sizeof(vectorcallfunc), 0},
                             {NULL}};
    PyType_Slot slots[] = {{Py_tp_call, PyVectorcall_Call}, {Py_tp_members, members}, {0, NULL}};
    PyType_Spec spec = {"singleflight.decorator.function.SingleFlightFunction",
                        (int)end + (int)(sizeof(vectorcallfunc) + sizeof(PyObject *)), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_VECTORCALL, slots};
    PyObject *made = PyType_FromSpecWithBases(&spec, (PyObject *)base);
    if (made != NULL && method) /* now that it has inherited a `__get__`, without which it may not have this */
        ((PyTypeObject *)made)->tp_flags |= Py_TPFLAGS_METHOD_DESCRIPTOR;
    return made;
}

static int is_made_here(PyObject *type) {
    return PyType_Check(type) && ((PyTypeObject *)type)->tp_call == PyVectorcall_Call
           && PyObject_HasAttrString(type, "_self_core");
}

PyDoc_STRVAR(show_doc, "Have a class that `make` made show something under a name; calls go on as they did.");
static PyObject *show(PyObject *module, PyObject *args) {
    PyObject *type, *name, *shown;
    if (!PyArg_ParseTuple(args, "O!UO:show", &PyType_Type, &type, &name, &shown))
        return NULL;
    /* Not by setting the attribute: CPython would call a `__call__` in place of what is here. */
    if (!is_made_here(type))
        return PyErr_Format(PyExc_TypeError, "%R was not made here", type);
    if (PyDict_SetItem(((PyTypeObject *)type)->tp_dict, name, shown) < 0)
        return NULL;
    PyType_Modified((PyTypeObject *)type);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(attach_doc, "Give a function, whose class `make` made, its core.");
static PyObject *attach(PyObject *module, PyObject *args) {
    PyObject *function, *core;
    if (!PyArg_ParseTuple(args, "OO:attach", &function, &core))
        return NULL;
    if (!is_made_here((PyObject *)Py_TYPE(function)) || Py_TYPE(core)->tp_dealloc != (destructor)dealloc)
        return PyErr_Format(PyExc_TypeError, "expected a function and its core, got %R, %R", function, core);
    char *end = (char *)function + Py_TYPE(function)->tp_vectorcall_offset;
    *(vectorcallfunc *)end = call;
    Py_XSETREF(*(PyObject **)(end + sizeof(vectorcallfunc)), Py_NewRef(core));
    Py_RETURN_NONE;
}

PyDoc_STRVAR(become_doc, "Give a function the other of the two classes that `make` made for it.");
static PyObject *become(PyObject *module, PyObject *args) {
    PyObject *function, *type;
    if (!PyArg_ParseTuple(args, "OO!:become", &function, &PyType_Type, &type))
        return NULL;
    PyTypeObject *before = Py_TYPE(function);
    if (!is_made_here((PyObject *)before) || !is_made_here(type) || before->tp_base != ((PyTypeObject *)type)->tp_base)
        return PyErr_Format(PyExc_TypeError, "%R and %R were not made for the same function", before, type);
    Py_SET_TYPE(function, (PyTypeObject *)Py_NewRef(type));
    Py_DECREF(before);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(trust_doc, "Read this clock without calling it from now on, if it tells what is read here.");
static PyObject *trust(PyObject *module, PyObject *timer) {
    double before = 0, after = 0;
    int can = PyCFunction_CheckExact(timer) && read_clock(&before) == 0;
    PyObject *told = PyObject_CallNoArgs(timer);
    if (told == NULL)
        return NULL;
    can = can && PyFloat_CheckExact(told) && read_clock(&after) == 0;
    if (can && before <= PyFloat_AS_DOUBLE(told) && PyFloat_AS_DOUBLE(told) <= after)
        monotonic = PyCFunction_GET_FUNCTION(timer);
    Py_DECREF(told);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"make", make, METH_VARARGS, make_doc}, {"attach", attach, METH_VARARGS, attach_doc},
                                {"show", show, METH_VARARGS, show_doc}, {"become", become, METH_VARARGS, become_doc},
                                {"trust", trust, METH_O, trust_doc},    {NULL}};

static int fill(PyObject *module) {
    PyObject *core = PyType_FromModuleAndSpec(module, &core_spec, NULL);
    int filled = PyModule_AddObjectRef(module, "Core", core); /* -1 also where there is none */
    Py_XDECREF(core);
    return filled < 0 ? -1 : PyModule_AddIntConstant(module, "MOST", MOST);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, fill}, {0, NULL}};
static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_hits", "The hit path in C.", 0, methods, module_slots};

PyMODINIT_FUNC PyInit__hits(void) { return PyModuleDef_Init(&definition); }
